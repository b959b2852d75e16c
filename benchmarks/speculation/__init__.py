"""What `speculate.py` is made of."""
