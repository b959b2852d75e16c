"""One file for each op: ``OP`` is its record, ``lower`` appends its operations to a `Program`."""
