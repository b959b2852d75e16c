"""Models that can be changed at will, right or wrong, and written as GGUF: what mutations and refusals are made of.

`GGUFWriter` refuses what breaks a rule; a `Draft` writes any type, shape and bytes whose container is valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from struct import pack
from typing import Any

import gguf_cases
import numpy as np
from numpy.typing import NDArray

from sis_core.gguf_file import TENSOR_TYPES, GGUFFile
from sis_core.gguf_file.tables import TENSOR_TYPES_BY_NAME, VALUE_TYPES, align_up

ALIGNMENT = 32
TYPES = {type.name: type for type in VALUE_TYPES.values()}


@dataclass(frozen=True)
class Value:
    """A metadata value with GGUF's name of its type, or of its elements' where it is a list."""

    type: str
    content: Any

    def encoded(self, key: str) -> bytes:
        """The pair as it stands in a file."""
        kind = TYPES[self.type]
        if not isinstance(self.content, list):
            return gguf_cases.pair(key, kind.id, self._scalar(self.content))
        return gguf_cases.array(key, kind.id, len(self.content), b"".join(map(self._scalar, self.content)))

    def _scalar(self, content: Any) -> bytes:
        layout = TYPES[self.type].layout
        return gguf_cases.string(content) if layout is None else layout.pack(content)


@dataclass(frozen=True)
class Stored:
    """A tensor: its shape in numpy's order, GGUF's type, and its bytes."""

    shape: tuple[int, ...]
    type_id: int
    data: NDArray[np.uint8]

    @property
    def values(self) -> NDArray[np.float32]:
        """Those of an F32 tensor."""
        assert self.type_id == 0
        return self.data.view(np.float32).reshape(self.shape)

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Stored:
        """In F32."""
        return cls(values.shape, 0, np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8))

    def fitted(self, shape: tuple[int, ...], type_id: int) -> Stored:
        """Another shape and type over the same bytes, repeated or cut to the length that these need."""
        known = TENSOR_TYPES[type_id]
        return Stored(shape, type_id, np.resize(self.data, known.n_bytes(math.prod(shape))))


@dataclass
class Draft:
    """A model: its metadata and tensors, in file order."""

    name: str
    metadata: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, Stored] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"].content)

    @classmethod
    def read(cls, path: Path, name: str) -> Draft:
        """All of a file."""
        with ExitStack() as stack:
            file = stack.enter_context(GGUFFile.open(path))
            metadata = {key: _value(value, file.metadata_types[key]) for key, value in file.metadata.items()}
            tensors = {
                key: Stored(info.shape, info.type_id, np.frombuffer(file.raw(key).tobytes(), np.uint8))
                for key, info in file.tensors.items()
            }
        return cls(name, metadata, tensors)

    def copy(self) -> Draft:
        """One whose keys and tensors can be replaced."""
        return replace(self, metadata=dict(self.metadata), tensors=dict(self.tensors))

    def with_vocabulary(self, name: str, values: Mapping[str, Any]) -> Draft:
        """The same network over another vocabulary: rows of the tables are repeated or cut."""
        n_old, n_new = len(self.metadata["tokenizer.ggml.tokens"].content), len(values["tokenizer.ggml.tokens"])
        draft = Draft(name, {k: v for k, v in self.metadata.items() if not k.startswith("tokenizer.")})
        draft.metadata |= {key: _inferred(value) for key, value in values.items()}
        for key, tensor in self.tensors.items():
            of_vocabulary = key.startswith(("token_embd.", "output.")) and tensor.shape[0] == n_old
            draft.tensors[key] = tensor.fitted((n_new, *tensor.shape[1:]), 0) if of_vocabulary else tensor
        return draft

    def encoded(self) -> bytes:
        """The file."""
        pairs = [value.encoded(key) for key, value in self.metadata.items()]
        sizes = [align_up(len(tensor.data), ALIGNMENT) for tensor in self.tensors.values()]
        offsets = accumulate(sizes, initial=0)
        entries = [
            gguf_cases.tensor(name, tensor.shape[::-1], tensor.type_id, offset)
            for (name, tensor), offset in zip(self.tensors.items(), offsets, strict=False)
        ]
        data = b"".join(t.data.tobytes().ljust(n, b"\0") for t, n in zip(self.tensors.values(), sizes, strict=True))
        return gguf_cases.gguf(pairs, entries, data)


def _value(value: Any, type: str) -> Value:
    name = type.removeprefix("array[").removesuffix("]")
    if not type.startswith("array["):
        return Value(name, value)
    return Value(name, value.bytes_list() if name == "string" else list(value))


def _inferred(value: Any) -> Value:
    sample = value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value
    name = next(name for kind, name in _INFERRED if isinstance(sample, kind))
    return Value(name, list(value) if sample is not value else value)


_INFERRED = ((bool, "bool"), (int, "int32"), (float, "float32"), (str, "string"))


def f32_bits(value: float) -> NDArray[np.uint8]:
    """A float32's four bytes."""
    return np.frombuffer(pack("<f", value), np.uint8)


def type_id(name: str) -> int:
    """GGUF's id of a tensor type."""
    return TENSOR_TYPES_BY_NAME[name].id
