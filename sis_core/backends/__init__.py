"""The arithmetic: the numpy reference, native libraries, the stub, and how several share one network."""
