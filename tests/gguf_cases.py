"""The 62 malformed GGUF files of the refusal table, built byte by byte, and the words each refusal must contain.

The first 27 are the cases of llama.cpp's tests/test-gguf.cpp; those that begin with X_ are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from struct import pack
from typing import NamedTuple

import pytest

from sis_core.errors import GGUFError, SisError

Save = Callable[..., Path]

U8, I32, U32, F32, BOOL, STRING, ARRAY = 0, 5, 4, 6, 7, 8, 9
TYPE_F32, TYPE_Q4_0 = 0, 2
U64_MAX = 2**64 - 1


def string(text: bytes | str) -> bytes:
    """A GGUF string: length, bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return pack("<Q", len(raw)) + raw


def pair(key: bytes | str, type: int, value: bytes) -> bytes:
    """A metadata key with a value that is already bytes."""
    return string(key) + pack("<I", type) + value


def array(key: str, type: int, n: int, values: bytes) -> bytes:
    """A metadata key with an array that says it has `n` elements."""
    return pair(key, ARRAY, pack("<IQ", type, n) + values)


def strings(key: str, texts: Sequence[bytes | str]) -> bytes:
    """A metadata key with an array of strings."""
    return array(key, STRING, len(texts), b"".join(map(string, texts)))


def u32(key: str, value: int) -> bytes:
    """A metadata key with a uint32."""
    return pair(key, U32, pack("<I", value))


def tensor(name: bytes | str, dims: Sequence[int], type: int = TYPE_F32, offset: int = 0) -> bytes:
    """A tensor's entry; `dims` in GGUF's order."""
    return string(name) + pack("<I", len(dims)) + pack(f"<{len(dims)}Q", *dims) + pack("<IQ", type, offset)


def gguf(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file. The counts are those of the lists unless told otherwise."""
    counts = (len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head = magic + pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data if tensors else head


def one(dims: Sequence[int], type: int = TYPE_F32, offset: int = 0, data: int = 128, name: bytes | str = "t") -> bytes:
    """A file with one tensor and `data` bytes of tensor data."""
    return gguf((), [tensor(name, dims, type, offset)], bytes(data))


def two(first: bytes, second: bytes, data: int = 256, pairs: Sequence[bytes] = ()) -> bytes:
    """A file with two tensors and `data` bytes of tensor data."""
    return gguf(pairs, [first, second], bytes(data))


class Case(NamedTuple):
    """A malformed file and what its refusal must say."""

    data: bytes
    says: tuple[str, ...]


T = tensor("t", [32])

#: Refused, by name. The table's two cases that are not refused stand below: OPAQUE and SCALAR.
CASES = {
    "HEADER_BAD_MAGIC": Case(gguf(magic=b"FUGG"), ("b'FUGG'", "not b'GGUF'")),
    "HEADER_BAD_VERSION_0": Case(gguf(version=0), ("GGUF version 0", "reads versions 2 and 3")),
    "HEADER_BAD_VERSION_1": Case(gguf(version=1), ("version 1", "rewrite it with", "llama.cpp")),
    "HEADER_BAD_VERSION_FUTURE": Case(gguf(version=4), ("GGUF version 4", "newer sis")),
    "HEADER_BAD_N_TENSORS": Case(gguf(n_tensors=U64_MAX), (f"counts {U64_MAX} tensors",)),
    "HEADER_BAD_N_KV": Case(gguf(n_pairs=U64_MAX), (f"counts {U64_MAX} metadata keys",)),
    "KV_BAD_KEY_SIZE": Case(gguf([pack("<Q", U64_MAX) + bytes(32)]), ("name of key 0", str(U64_MAX), "65535")),
    "KV_EMPTY_KEY": Case(gguf([u32("", 1)]), ("key 0", "empty name")),
    "KV_BAD_TYPE": Case(gguf([pair("k", 13, bytes(8))]), ("key 'k'", "value type 13", "0 to 12")),
    "KV_DUPLICATE_KEY": Case(gguf([u32("k", 1), u32("k", 2)]), ("key 'k'", "twice")),
    "KV_BAD_ALIGN": Case(gguf([u32("general.alignment", 13)]), ("general.alignment", "is 13", "power of 2")),
    "KV_WRONG_TYPE_ALIGN": Case(
        gguf([pair("general.alignment", I32, pack("<i", 32))]), ("general.alignment", "uint32", "int32")
    ),
    "TENSORS_BAD_NAME_SIZE": Case(one([32], name="t" * 80), ("name of tensor 0", "80 bytes", "63")),
    "TENSORS_BAD_N_DIMS": Case(one([32, 1, 1, 1, 1]), ("tensor 't'", "5 dimensions", "at most 4")),
    "TENSORS_BAD_SHAPE": Case(one([U64_MAX]), ("tensor 't'", f"{U64_MAX} elements", "dimension 0")),
    "TENSORS_NE_TOO_BIG": Case(one([8589934588, 8589934588]), ("tensor 't'", "(8589934588, 8589934588)", "2**63 - 1")),
    "TENSORS_NBYTES_TOO_BIG": Case(
        one([1533685253, 1533685253]), ("tensor 't'", str(1533685253**2 * 4), "the file holds 128")
    ),
    "TENSORS_NBYTES_PAD_WRAP": Case(
        one([2**62 - 4]), ("tensor 't'", str(2**64 - 16), "the file holds 128", "download it again")
    ),
    "TENSORS_BAD_OFFSET": Case(one([32], offset=U64_MAX), ("tensor 't'", f"offset {U64_MAX}", "alignment 32")),
    "TENSORS_DUPLICATE_NAME": Case(two(T, tensor("t", [32], offset=128)), ("two tensors", "'t'")),
    "TENSORS_BAD_ALIGN": Case(
        gguf([u32("general.alignment", 13)], [T], bytes(128)), ("general.alignment", "is 13", "power of 2")
    ),
    "TENSORS_INCONSISTENT_ALIGN": Case(
        two(tensor("t", [3]), tensor("u", [3], offset=12)), ("tensor 'u'", "offset 12", "alignment 32")
    ),
    "DATA_NOT_ENOUGH_DATA": Case(
        one([32], data=127), ("tensor 't'", "bytes 0 to 128", "holds 127", "download it again")
    ),
    "DATA_BAD_ALIGN": Case(
        gguf([u32("general.alignment", 13)], [T], bytes(128)), ("general.alignment", "is 13", "power of 2")
    ),
    "DATA_INCONSISTENT_ALIGN": Case(
        two(tensor("t", [3]), tensor("u", [3], offset=32), pairs=[u32("general.alignment", 64)]),
        ("tensor 'u'", "offset 32", "alignment 64"),
    ),
    "DATA_MEM_SIZE_OVERFLOW": Case(
        two(tensor("t", [2**61 - 8]), tensor("u", [2**61 - 8], offset=2**63 - 32)),
        ("tensor 't'", str(2**63 - 32), "the file holds 256"),
    ),
    "X_EMPTY_FILE": Case(b"", ("empty file", "Download it again")),
    "X_TRUNC_MAGIC": Case(b"GG", ("only 2 bytes", "not GGUF")),
    "X_TRUNC_HEADER": Case(gguf()[:13], ("number of tensors", "file ends at 13")),
    "X_TRUNC_IN_KEY": Case(gguf([pack("<Q", 20) + b"abcdefgh"]), ("name of key 0", "20 bytes", "file ends at 40")),
    "X_TRUNC_IN_VALUE": Case(gguf([u32("key", 7)[:-2]]), ("value of key 'key'", "4 bytes", "file ends at 41")),
    "X_STRING_LEN_OVER_EOF": Case(
        gguf([pair("k", STRING, pack("<Q", 2**30) + bytes(8))]), ("value of key 'k'", str(2**30), "file ends at 53")
    ),
    "X_STRING_LEN_2_63": Case(
        gguf([pair("k", STRING, pack("<Q", 2**63) + bytes(8))]), ("value of key 'k'", str(2**63), "file ends at 53")
    ),
    "X_ARRAY_LEN_OVER_EOF_u8": Case(
        gguf([array("k", U8, 2**30, bytes(8))]), ("key 'k'", f"array[uint8] of {2**30}", "ends at 57")
    ),
    "X_ARRAY_LEN_2_63_u8": Case(
        gguf([array("k", U8, 2**63, bytes(8))]), ("key 'k'", f"array[uint8] of {2**63}", "ends at 57")
    ),
    "X_ARRAY_OF_ARRAYS_depth2": Case(
        gguf([array("k", ARRAY, 1, pack("<IQ", U8, 1) + b"\1")]), ("key 'k'", "array of arrays")
    ),
    "X_ARRAY_NESTED_depth5000": Case(
        gguf([array("k", ARRAY, 1, pack("<IQ", ARRAY, 1) * 5000)]), ("key 'k'", "array of arrays")
    ),
    "X_BAD_UTF8_KEY": Case(
        gguf([pair(b"key\xff", U32, bytes(4))]), ("name of key 0", "not UTF-8", "byte 3", r"b'key\xff'")
    ),
    "X_BAD_UTF8_VALUE": Case(
        gguf([pair("k", STRING, string(b"ab\xffcd"))]), ("value of key 'k'", "not UTF-8", "byte 2", r"b'ab\xffcd'")
    ),
    "X_NUL_IN_TENSOR_NAME": Case(one([32], name="t\0u"), ("tensor 0", "NUL", r"'t\x00u'")),
    "X_BOOL_NOT_0_1": Case(gguf([pair("k", BOOL, b"\2")]), ("key 'k'", "bool that is 2", "0 or 1")),
    "X_ALIGN_ZERO": Case(gguf([u32("general.alignment", 0)]), ("general.alignment", "is 0", "power of 2")),
    "X_ALIGN_1GiB": Case(
        gguf([u32("general.alignment", 2**30)], [T], bytes(128)),
        ("begin at byte 1073741824", "alignment 1073741824", "file ends at 224"),
    ),
    "X_ZERO_DIM": Case(one([32, 0]), ("tensor 't'", "0 elements in dimension 1")),
    "X_N_DIMS_HUGE": Case(
        gguf((), [string("t") + pack("<I", 2**32 - 1) + bytes(64)]), ("tensor 't'", "4294967295 dimensions")
    ),
    "X_DIMS_WRAP_TO_SMALL": Case(one([2**32, 2**32]), ("tensor 't'", str(2**64), "2**63 - 1")),
    "X_DIMS_WRAP_TO_8": Case(one([2**63 + 4, 2]), ("tensor 't'", str(2**63 + 4), "dimension 0")),
    "X_Q4_0_ROW_NOT_MULT_32": Case(one([33], TYPE_Q4_0), ("tensor 't'", "rows of 33", "Q4_0", "multiple of 32")),
    "X_REMOVED_TYPE_4_Q4_2": Case(
        one([32], 4), ("tensor 't'", "type 4 (Q4_2)", "removed", "original weights, as Q4_0")
    ),
    "X_REMOVED_TYPE_31_Q4_0_4_4": Case(
        one([32], 31), ("tensor 't'", "type 31 (Q4_0_4_4)", "removed", "original weights, as Q4_0")
    ),
    "X_TENSOR_OFFSET_PAST_EOF": Case(one([32], offset=4096), ("tensor 't'", "bytes 4096 to 4224", "holds 128")),
    "X_TENSOR_OFFSET_MISALIGNED": Case(one([32], offset=4, data=256), ("tensor 't'", "offset 4", "alignment 32")),
    "X_TENSORS_OVERLAP": Case(
        two(T, tensor("u", [32], offset=64)), ("tensor 'u' at offset 64", "overlaps tensor 't'", "0 to 128")
    ),
    "X_TENSOR_OFFSET_INTO_HEADER_wrap": Case(one([8], offset=2**64 - 64), ("tensor 't'", str(2**64 - 64), "holds 128")),
    "X_WRONG_ENDIAN": Case(
        b"GGUF" + pack(">IQQ", 3, 0, 1) + pack(">Q", 1) + b"k" + pack(">II", 4, 1),
        ("big-endian", "gguf-convert-endian"),
    ),
    "X_GGML_OLD_MAGIC": Case(pack("<I", 0x67676D6C) + bytes(64), ("GGML", "not GGUF", "convert")),
    "X_GGJT_MAGIC": Case(pack("<II", 0x67676A74, 3) + bytes(64), ("GGJT", "not GGUF", "convert")),
    "X_SAFETENSORS_AS_GGUF": Case(
        pack("<Q", 57) + b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   ' + bytes(4),
        ("safetensors", "not GGUF", "convert"),
    ),
    "X_GIT_LFS_POINTER": Case(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1185376\n",
        ("Git LFS pointer", "git lfs pull"),
    ),
    "X_HTML_AS_GGUF": Case(b"<!DOCTYPE html>\n<html><body>404</body></html>", ("HTML", "not GGUF", "/resolve/")),
}

#: TENSORS_BAD_TYPE: a type id we do not know is kept as an opaque tensor; whoever wants its numbers refuses it by name.
OPAQUE = one([32], 99, data=64)

#: X_N_DIMS_0: no dimensions make a scalar, by rule.
SCALAR = one([], data=4)


def refusal(opened: Callable[[], object], kind: type[SisError] = GGUFError) -> str:
    """The words in which something is not opened."""
    with pytest.raises(kind) as caught:
        opened()
    assert caught.value.where, "a refusal says where"
    assert caught.value.fix, "a refusal says what to do"
    assert "\n" not in str(caught.value)
    return str(caught.value)
