"""Servers under load: what `benchmarks/serve.py` is made of."""
