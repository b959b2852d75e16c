"""The facts of GGUF: value types, tensor types and the limits a reader may rely on."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MIN_ALIGNMENT = 8

MAX_DIMS = 4
MAX_KEY_BYTES = 2**16 - 1
MAX_NAME_BYTES = 63  # ggml keeps a name in 64 bytes with its closing NUL
MAX_COUNT = 2**63 - 1  # ggml counts elements in int64
MAX_HEADER_BYTES = 2**27  # the largest vocabularies of today need 2**24
MAX_ELEMENTS_PER_BYTE = 64  # of a format we cannot size: below an eighth of a bit a weight the shape is a lie

U32 = Struct("<I")
U64 = Struct("<Q")


class ValueType(NamedTuple):
    """A scalar type of metadata: its id, the spec's name and the `struct` layout (None for strings)."""

    id: int
    name: str
    layout: Struct | None


STRING, ARRAY, BOOL = 8, 9, 7

#: Scalar value types by id. Id 9, the array, is not a scalar.
VALUE_TYPES = {
    id: ValueType(id, name, Struct("<" + code) if code else None)
    for id, name, code in (
        (0, "uint8", "B"),
        (1, "int8", "b"),
        (2, "uint16", "H"),
        (3, "int16", "h"),
        (4, "uint32", "I"),
        (5, "int32", "i"),
        (6, "float32", "f"),
        (BOOL, "bool", "?"),
        (STRING, "string", ""),
        (10, "uint64", "Q"),
        (11, "int64", "q"),
        (12, "float64", "d"),
    )
}


class TensorType(NamedTuple):
    """A tensor type of GGUF: rows are whole blocks of `block_size` elements in `type_size` bytes."""

    id: int
    name: str
    block_size: int
    type_size: int

    def n_bytes(self, n: int) -> int:
        """Bytes of `n` elements, a whole number of blocks."""
        return n // self.block_size * self.type_size


#: Tensor types by id: every one that GGUF has today (checked by a test against the `gguf` package).
TENSOR_TYPES = {
    row[0]: TensorType(*row)
    for row in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 40),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
    )
}
TENSOR_TYPES_BY_NAME = {type.name: type for type in TENSOR_TYPES.values()}
I8 = TENSOR_TYPES_BY_NAME["I8"]

#: Tensor types that ggml once wrote and no longer reads, by id: (name, the type to use in its place).
REMOVED_TYPES = {
    4: ("Q4_2", "Q4_0"),
    5: ("Q4_3", "Q4_1"),
    31: ("Q4_0_4_4", "Q4_0"),
    32: ("Q4_0_4_8", "Q4_0"),
    33: ("Q4_0_8_8", "Q4_0"),
    36: ("IQ4_NL_4_4", "IQ4_NL"),
    37: ("IQ4_NL_4_8", "IQ4_NL"),
    38: ("IQ4_NL_8_8", "IQ4_NL"),
}


def is_alignment(n: int) -> bool:
    """Whether tensors may be aligned to `n` bytes: the specification wants a multiple of 8, ggml a power of 2."""
    return n >= MIN_ALIGNMENT and not n & (n - 1)


def align_up(n: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `n`."""
    return -(-n // alignment) * alignment
