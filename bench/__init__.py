"""Weir measured against its peers: `python -m bench.flow`. README.md beside this says how to read it."""
