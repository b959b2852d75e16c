"""A strict reader for GGUF files, versions 2 and 3, little-endian, whole or split into shards.

The header is read once with plain Python integers and checked whole before any tensor can be touched, so that a
malformed file ends in one clear error and never in a crash. Names and sizes come from the GGUF specification
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); where ggml is stricter than its specification, so are we.

    tables    value types, tensor types, limits      not_gguf  what a file is when it is not GGUF
    cursor    bounded reads                          tensors   where each tensor lies
    arrays    lazy metadata arrays                   foreign   formats that GGUF has no id for
    header    bytes -> Header                        shards    part 1 of 3 -> all three
    reader    GGUFFile                               model_file  what others that look like one must have
"""

from sis_core.gguf_file.arrays import Array, Value
from sis_core.gguf_file.model_file import ModelFile
from sis_core.gguf_file.reader import GGUFFile
from sis_core.gguf_file.tables import REMOVED_TYPES, TENSOR_TYPES, TensorType
from sis_core.gguf_file.tensors import TensorInfo

__all__ = ["REMOVED_TYPES", "TENSOR_TYPES", "Array", "GGUFFile", "ModelFile", "TensorInfo", "TensorType", "Value"]
