"""How much each input column of a weight matters: mean squared activations, as llama.cpp stores them in GGUF.

For a tensor ``T`` of ``n_expert`` matrices (1 for most) the file holds, in float32,

    T.in_sum2   (n_expert, n_cols)   sums of squared inputs
    T.counts    (n_expert, 1)        how many rows were summed

and the keys ``imatrix.datasets``, ``imatrix.chunk_count`` and ``imatrix.chunk_size``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, F64
from sis_core.errors import FormatError
from sis_core.gguf_file import Array, GGUFFile
from sis_core.gguf_file.writer import GGUFWriter

SUMS, COUNTS = ".in_sum2", ".counts"


@frozen(eq=False)
class Importance:
    """Sums and counts by tensor.

    Attributes:
        sums: float64 ``(n_expert, n_cols)`` of each tensor.
        counts: float64 ``(n_expert,)`` of each tensor.
        datasets: the texts it was measured on.
        n_chunks, chunk_size: how many pieces of how many tokens.
        path: the file it was read from.
        digest: identifies the contents.
    """

    sums: Mapping[str, F64]
    counts: Mapping[str, F64]
    datasets: tuple[str, ...] = ()
    n_chunks: int = 0
    chunk_size: int = 0
    path: str = ""
    digest: str = field(default="")

    def mean(self, name: str, shape: Sequence[int]) -> F32 | None:
        """Mean squares float32 ``(n_expert, n_cols)`` for a tensor of ``shape``, or None when it was not measured.

        Columns of a matrix that saw no token count 1 each.

        Raises:
            FormatError: it was measured on a tensor of another shape.
        """
        if name not in self.sums:
            return None
        sums, counts = self.sums[name], self.counts[name]
        n_expert = shape[0] if len(shape) == 3 else 1
        if sums.shape != (n_expert, shape[-1]):
            raise FormatError(
                f"has importance for {sums.shape[0]} × {sums.shape[1]} columns of {name}, "
                f"but the tensor has {n_expert} × {shape[-1]}",
                where=self.path or "importance",
                fix="measure it again with `sis imatrix` on this model",
            )
        means = np.ones(sums.shape)
        np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)
        return means.astype(np.float32)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a GGUF file that llama.cpp's tools read too."""
        datasets = list(self.datasets) or ["unknown"]
        values: dict[str, Any] = {
            "general.type": "imatrix",
            "imatrix.datasets": datasets,
            "imatrix.chunk_count": self.n_chunks,
            "imatrix.chunk_size": self.chunk_size,
        }
        writer = GGUFWriter(path, values)
        for name in self.sums:
            sums = self.sums[name].astype(np.float32)
            counts = self.counts[name].astype(np.float32).reshape(-1, 1)
            writer.add_tensor(name + SUMS, sums.shape, "F32", [sums])
            writer.add_tensor(name + COUNTS, counts.shape, "F32", [counts])
        writer.write()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Importance:
        """Read such a file; FormatError when it holds no importance, or a tensor's part is missing or not float32."""
        with GGUFFile.open(path) as file:
            sums: dict[str, F64] = {}
            counts: dict[str, F64] = {}
            digest = hashlib.sha256()
            for name in file.tensors:
                digest.update(name.encode() + file.raw(name).tobytes())
                if name.endswith(SUMS):
                    stem = name.removesuffix(SUMS)
                    sums[stem] = np.atleast_2d(_floats(file, name))
                    counts[stem] = _floats(file, stem + COUNTS).reshape(-1)
                    _check(stem, sums[stem], counts[stem], str(path))
            if not sums:
                raise FormatError(
                    "holds no importance", where=str(path), fix="give a GGUF file that `sis imatrix` wrote"
                )
            return cls(
                sums, counts, _texts(file), _number(file, "chunk_count"), _number(file, "chunk_size"),
                str(path), digest.hexdigest(),
            )  # fmt: skip


def _floats(file: GGUFFile, name: str) -> F64:
    if name not in file.tensors or file.tensors[name].type_name != "F32":
        raise FormatError(f"tensor {name} is missing or not F32", where=str(file.path), fix="measure it again")
    return file.raw(name).view("<f4").reshape(file.tensors[name].shape).astype(np.float64)


def _check(name: str, sums: F64, counts: F64, where: str) -> None:
    fits = len(counts) == len(sums)
    if not fits or not np.isfinite(sums).all() or (sums < 0).any() or not np.isfinite(counts).all():
        raise FormatError(f"the importance of {name} is damaged", where=where, fix="measure it again")


def _texts(file: GGUFFile) -> tuple[str, ...]:
    value = file.metadata.get("imatrix.datasets")
    if isinstance(value, Array) and value.element_type == "string":
        return tuple(text.decode("utf-8", "replace") for text in value.bytes_list())
    return ()


def _number(file: GGUFFile, key: str) -> int:
    value = file.metadata.get(f"imatrix.{key}")
    return value if isinstance(value, int) else 0
