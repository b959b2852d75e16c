"""Train a small LLaMA-architecture story model from a folder of text and write it as a GGUF file."""
