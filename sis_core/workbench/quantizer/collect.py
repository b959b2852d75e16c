"""Measuring importance: a backend that adds up the squares of what goes into every linear."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from attrs import define, field, frozen

from sis_core.arrays import F32, F64
from sis_core.backend import Backend, BackendOptions, Linear
from sis_core.backends.numpy import ReferenceLinear
from sis_core.discovery.plugin import Plugin
from sis_core.hookspecs import hookimpl
from sis_core.loading.model import Model
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.texts.session import CHUNK, Session
from sis_core.workbench.chunks import chunks_of
from sis_core.workbench.quantizer.importance import Importance

NAME = "importance"


@define(eq=False)
class Sums:
    """Sums of squares by tensor; any number of threads may add."""

    sums: dict[str, F64] = field(factory=dict)
    counts: dict[str, F64] = field(factory=dict)
    lock: threading.Lock = field(factory=threading.Lock)

    def add(self, weight: Weight, x: F32) -> None:
        """Count the rows ``x`` ``(n, n_in)`` that go into ``weight``, a whole tensor or a slice of one."""
        shape = weight.file_shape
        n_expert = shape[0] if len(shape) == 3 else 1
        expert, first = divmod(weight.first_row, shape[-2])
        if first:
            return  # another part of a fused tensor has counted this input already
        squares = np.einsum("ij,ij->j", x, x, dtype=np.float64)
        with self.lock:
            sums = self.sums.setdefault(weight.name, np.zeros((n_expert, shape[-1])))
            counts = self.counts.setdefault(weight.name, np.zeros(n_expert))
            sums[expert, weight.first_col : weight.first_col + weight.n_cols] += squares
            if weight.first_col == 0:
                counts[expert] += len(x)


@frozen(eq=False)
class CountedLinear:
    """A linear that counts its inputs."""

    weight: Weight
    linear: Linear
    sums: Sums

    def __call__(self, x: F32) -> F32:
        self.sums.add(self.weight, x)
        return self.linear(x)


class CountingBackend(Backend):
    """The numpy reference with a counter on every linear; used only by name."""

    name = NAME

    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def linear(self, weight: Weight, options: BackendOptions) -> Linear:
        return CountedLinear(weight, ReferenceLinear(weight), self._sums)

    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [self]


def counting(registry: Registry) -> tuple[Registry, Sums]:
    """A registry with a backend called `NAME`, and where it counts."""
    sums = Sums()
    plugins = [*registry.plugins, Plugin(NAME, CountingBackend(sums))]
    return Registry(plugins, prefer=registry.prefer), sums


def measure(
    model: Model,
    sums: Sums,
    tokens: Sequence[int],
    *,
    n_ctx: int = 512,
    dataset: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> Importance:
    """Run ``tokens`` through a model that was opened with the backend of `counting`, in texts of ``n_ctx`` tokens.

    Raises:
        ContextError: there are fewer tokens than one chunk holds.
    """
    chunks = chunks_of(tokens, n_ctx, model.tokenizer, dataset or "text")
    with Session(model, n_ctx=n_ctx) as session:
        for i, chunk in enumerate(chunks):
            for start in range(0, n_ctx, CHUNK):
                part = chunk.fed[start : start + CHUNK]
                session.advance({0: part}, {0: len(part)})
            session.drop(0)
            if progress:
                progress("measuring", i + 1, len(chunks))
    names = sorted(sums.sums)
    return Importance(
        {name: sums.sums[name] for name in names},
        {name: sums.counts[name] for name in names},
        (dataset,) if dataset else (),
        len(chunks),
        n_ctx,
    )
