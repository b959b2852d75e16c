"""A model whose layers are bound in ranges by several processes, on several machines."""
