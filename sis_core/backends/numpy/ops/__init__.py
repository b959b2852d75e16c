"""One file for each op: ``OP`` is its record, ``bind`` makes of one what `ReferenceLayer` runs."""
