"""Benchmarks; each module is run with `python -m bench.<module>` from the root of the repository."""
