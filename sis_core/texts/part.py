"""What a step is asked for: the tokens of each text, and what is wanted of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from sis_core.arrays import F32
from sis_core.step import Best, MultiStepLimit

Want = Literal["logits", "hidden"]
Rows: TypeAlias = F32 | Sequence[Best]  # results: float32 (k, n), or k times what is best


def gone_on(rows: Rows) -> list[int]:
    """Tokens that a backend fed by itself after a part of one token: the likeliest of all its rows but the last."""
    return [row.token for row in rows[:-1] if isinstance(row, Best)]


class Part(NamedTuple):
    """What a step appends to one sequence.

    Attributes:
        tokens: at least one id.
        outputs: of how many of the last ones the results are wanted.
    """

    sequence: int
    tokens: list[int]
    outputs: int


class Asked(NamedTuple):
    """What is wanted of all parts.

    Attributes:
        want: logits, or hidden states after the output norm.
        alone: compute each row as if it were by itself, see `Batch.alone`; None for where something is fed again.
        greedy: no more is looked at than `Best` says, and no more may come.
        multi_step: of one part of one token: how far the backend may go on by itself, see `Batch.multi_step`.
    """

    want: Want = "logits"
    alone: bool | None = False
    greedy: bool = False
    multi_step: MultiStepLimit | None = None
