"""What is measured, and what becomes of the samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from sis_core.errors import ContextError


@frozen
class Case:
    """One row of the table.

    Attributes:
        kind: ``pp`` runs a prompt of ``n`` tokens at once, ``tg`` runs ``n`` steps of one token.
        n: tokens of each sequence.
        batch: sequences that share every step.
        depth: tokens each sequence holds before the clock starts.
    """

    kind: Literal["pp", "tg"]
    n: int
    batch: int = 1
    depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench writes it: ``pp512``, ``tg128 @ d1024``; a batch of 8 adds ``× 8``."""
        return f"{self.kind}{self.n}" + f" × {self.batch}" * (self.batch > 1) + f" @ d{self.depth}" * (self.depth > 0)

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence needs room for."""
        return self.n + self.depth

    @property
    def n_tokens(self) -> int:
        """Tokens that are timed."""
        return self.n * self.batch


@frozen
class Summary:
    """Samples of one case in tokens a second. ``spread`` is the sample standard deviation."""

    median: float
    low: float
    high: float
    spread: float
    n: int


def make_cases(
    prompts: Sequence[int], lengths: Sequence[int], batches: Sequence[int], depths: Sequence[int]
) -> list[Case]:
    """Every combination; a prompt or length of 0 leaves that kind out. ContextError when nothing is left."""
    kinds: list[tuple[Literal["pp", "tg"], Sequence[int]]] = [("pp", prompts), ("tg", lengths)]
    cases = [
        Case(kind, n, batch, depth)
        for depth in depths
        for batch in batches
        for kind, sizes in kinds
        for n in sizes
        if n
    ]  # fmt: skip
    if not cases:
        raise ContextError("there is nothing to measure", where="sis bench", fix="give -p or -n more than 0")
    return cases


def summarise(samples: Sequence[float]) -> Summary:
    """The median and spread of at least one sample."""
    spread = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Summary(statistics.median(samples), min(samples), max(samples), spread, len(samples))
