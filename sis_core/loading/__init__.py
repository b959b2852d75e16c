"""From a file to a bound model."""
