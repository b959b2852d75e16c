"""How many parameters a file has, and how many of them a token is multiplied by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from attrs import frozen

from sis_core.architecture import MAX_LAYERS
from sis_core.gguf_file import TensorInfo
from sis_core.tensors import TOWERS

EXPERTS = "_exps."
TABLE, HEAD = "token_embd.weight", "output.weight"
NEXTN = ".nextn."


@frozen
class Parameters:
    """Those of a file, seen from its names and keys alone, whether or not a plugin can run it.

    Attributes:
        total: all of them.
        active: those of a token, which uses a few of each layer's experts.
        active_nbytes: bytes that a step of one token reads: of the embedding a row, unless it is the head too.
        ignored: tensors of layers that only guess more than one token ahead, which no family here does.
        towers: tensors that see or hear, which no text needs.
    """

    total: int
    active: int
    active_nbytes: int
    ignored: tuple[str, ...]
    towers: tuple[str, ...] = ()

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, Any]) -> Parameters:
        share = _share(metadata)
        ignored = _ahead(tensors, metadata)
        rows = TABLE if HEAD in tensors else None  # of which one is read
        towers = tuple(name for name in tensors if name.startswith(TOWERS))
        unused = {*ignored, *towers}
        used = [info for name, info in tensors.items() if name not in unused]
        return cls(
            sum(prod(info.shape) for info in used),
            round(_sum(((info, prod(info.shape)) for info in used), share)),
            round(_sum(((info, info.n_bytes) for info in used if info.name != rows), share)),
            tuple(ignored),
            towers,
        )

    def __str__(self) -> str:
        active = f", {self.active / 1e6:,.0f} M of them active for a token" if self.active < self.total else ""
        return f"{self.total / 1e6:,.0f} M parameters{active}"


def _sum(counts: Iterable[tuple[TensorInfo, int]], share: float) -> float:
    return sum(n * (share if EXPERTS in info.name else 1.0) for info, n in counts)


def _key(metadata: Mapping[str, Any], name: str) -> int:
    """A number of the file's architecture; 0 for what is none."""
    value = metadata.get(f"{metadata.get('general.architecture')}.{name}")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _share(metadata: Mapping[str, Any]) -> float:
    """The part of a layer's experts that a token uses."""
    n, used = _key(metadata, "expert_count"), _key(metadata, "expert_used_count")
    return min(1.0, used / n) if n and used else 1.0


def _ahead(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, Any]) -> list[str]:
    """The tensors of the layers that predict further tokens, which follow the others."""
    n_ahead, n_layer = _key(metadata, "nextn_predict_layers"), _key(metadata, "block_count")
    layers = {f"blk.{i}." for i in range(max(0, n_layer - n_ahead), min(n_layer, MAX_LAYERS))}
    return [name for name in tensors if NEXTN in name or any(name.startswith(layer) for layer in layers)]
