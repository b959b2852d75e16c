"""One step of a model: the records that go in and out, and the protocols a backend answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, I32, extremes
from sis_core.errors import BackendError


def _int32(values: Any) -> I32 | None:
    if values is None:
        return None
    try:
        if not isinstance(values, np.ndarray):
            array: I32 = np.array(values, np.int32)
        elif values.dtype == np.int32:
            array = np.ascontiguousarray(values)
        else:
            array = np.array(values.tolist(), np.int32)
    except OverflowError:
        raise BackendError("a token, position, sequence or output does not fit into 32 bits", where="batch") from None
    return array if array.ndim == 1 else array.reshape(-1)


@frozen(eq=False)
class Batch:
    """One ragged step of ``n`` rows, in any mix of sequences: a prefill chunk, one token each of many, or both.

    Attributes:
        tokens: ids ``(n,)``; None when ``hidden`` is given.
        positions: ``(n,)`` place of each row in its text. Rows of a sequence must continue it without a gap, in order.
        sequences: ``(n,)`` which sequence a row belongs to: any 32-bit int of the caller's choice.
        outputs: ``(k,)`` indices of the rows whose result is wanted; may be empty.
        want: logits, or the hidden state after the output norm (or, for layers that end early, after the last layer).
        hidden: ``(n, n_embd)`` in the backend's own kind of array, for a range of layers that does not start at 0.
        adapters: sequence to name of a LoRA adapter; empty for most.
    """

    tokens: I32 | None = field(converter=_int32)
    positions: I32 = field(converter=_int32)
    sequences: I32 = field(converter=_int32)
    outputs: I32 = field(converter=_int32)
    want: Literal["logits", "hidden"] = "logits"
    hidden: Any | None = None
    adapters: Mapping[int, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        given = self.hidden if self.tokens is None else self.tokens
        n, n_given, n_sequences = self.n, -1 if given is None else len(given), len(self.sequences)
        if not n_given == n == n_sequences or not n:
            lengths = {n_given, n, n_sequences}
            raise BackendError(f"tokens, positions and sequences have lengths {sorted(lengths)}", where="batch")
        if len(self.outputs):
            least, most = extremes(self.outputs)
            if least < 0 or most >= n:
                raise BackendError(f"an output row is outside the {n} rows of the step", where="batch")

    @property
    def n(self) -> int:
        return len(self.positions)

    def check_tokens(self, n_vocab: int) -> None:
        """BackendError for an id outside a vocabulary of ``n_vocab``; hidden states have none."""
        if self.tokens is None:
            return
        least, most = extremes(self.tokens)
        if least >= 0 and most < n_vocab:
            return
        outside = self.tokens[(self.tokens < 0) | (self.tokens >= n_vocab)]
        raise BackendError(f"token {int(outside[0])} is outside the vocabulary of {n_vocab}", where="step")

    @classmethod
    def of(cls, tokens: Any, *, position: int = 0, sequence: int = 0, outputs: Any = None) -> Batch:
        """Consecutive ``tokens`` of one sequence from ``position`` on; by default only the last row's logits."""
        n = len(tokens)
        rows = [n - 1] if outputs is None else outputs
        return cls(tokens, np.arange(position, position + n), np.full(n, sequence), rows)


class Output(NamedTuple):
    """Result of a step: float32 ``(k, n_vocab)`` logits or ``(k, n_embd)`` hidden states, row by row of ``outputs``."""

    values: F32
    degraded: bool = False


class Group(NamedTuple):
    """The rows of one sequence within a step.

    Attributes:
        rows: indices ``(m,)`` into the step, in order of position.
        pages: page numbers ``(p,)`` of the sequence from its start; token ``t`` lies in page ``pages[t // page_size]``.
        length: tokens of the sequence including this step; row ``rows[j]`` has position ``length - m + j``.
    """

    rows: I32
    pages: I32
    length: int


class Plan(NamedTuple):
    """Where a step's keys and values go and what each row may see: computed once, read by every layer.

    Attributes:
        positions: ``(n,)`` as in the batch.
        slots: ``(n,)`` where each row's key and value are written: ``page * page_size + position % page_size``.
        groups: one per sequence in the step.
    """

    positions: I32
    slots: I32
    groups: tuple[Group, ...]
    page_size: int
