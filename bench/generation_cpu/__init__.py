"""Carpool's generation on the CPU beside the engines people use, on one model, one machine, in one run."""
