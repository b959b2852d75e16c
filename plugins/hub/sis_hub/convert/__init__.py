"""safetensors to GGUF: a folder as Hugging Face has it becomes one file, once.

    safetensors   the header of one file, checked whole       families        config.json -> GGUF's keys
    checkpoint    config.json, the index and all files        vocabulary      tokenizer.json or .model -> GGUF's keys
    view          all of it, read as if it were a GGUF file   pre_tokenizers  how words are cut, by published patterns
    run           the view written to the cache           experts         one stack for each matrix of a layer

Tensors get their names from the ``gguf`` package's map and their layout from the model family (`Architecture.
from_hugging_face`), so that every installed family whose configuration is known here can be converted.
"""
