"""Embeddings over HTTP: Carpool beside the servers people use, on one model, one machine, in one run."""
