"""One step of a model: the records that go in and out, and the protocols a backend answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, I32, extremes
from sis_core.errors import BackendError

MAX_INT32 = (1 << 31) - 1
Ints: TypeAlias = Sequence[int] | I32  # 32-bit integers: a list stays one, since few of them are dearer in an array


def as_int32(values: Any) -> I32:
    """Integers as an array ``(n,)``; BackendError for one that does not fit."""
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


class Run(NamedTuple):
    """Consecutive rows of one sequence: ``n`` of them, at places ``start``, ``start + 1`` … of its text."""

    sequence: int
    start: int
    n: int


class MultiStepLimit(NamedTuple):
    """Greedy tokens beside a step's own; see `Batch.multi_step`.

    Attributes:
        n: how many at most.
        ends: ids after which the text ends: none comes after them.
    """

    n: int
    ends: frozenset[int] = frozenset()


@frozen(eq=False, slots=False)  # so its making fills a dict: a slot of a frozen class takes several times as long
class Batch:
    """One ragged step of ``n`` rows, in any mix of sequences: a prefill chunk, one token each of many, or both.

    Attributes:
        tokens: ids ``(n,)``, int32; may be None when ``hidden`` is given.
        runs: which rows belong to which sequence, and where in its text they stand: the first run's rows come first. A
            run continues what the cache keeps of its sequence without a gap; a sequence, any 32-bit int of the
            caller's choice, has one run at most.
        outputs: ``(k,)`` indices of the rows whose result is wanted; may be empty.
        want: logits, or the hidden state after the output norm (or, for layers that end early, after the last layer).
        hidden: ``(n, n_embd)`` in the backend's own kind of array, for a range of layers that does not start at 0: they
            take the place of the tokens' embedding.
        adapters: sequence to name of a LoRA adapter; empty for most.
        alone: compute each row as if it were by itself, so that its result has the same bits in whatever company.
        watch: tell where the rows' attention goes, see `Output.attention`; of one run.
        greedy: of each row's logits nothing is looked at but what `Best` says: a backend may tell that alone.
        multi_step: of a greedy step of one row: a backend may go on by itself with the likeliest token, as if each were
            asked for by a step of its own; None for not at all. `Output.best` says how far it came.
        ids, rows: ``tokens`` and ``outputs`` as they were given: a list, or an array.
    """

    ids: Ints | None = field(alias="tokens")
    runs: tuple[Run, ...]
    rows: Ints = field(alias="outputs")
    want: Literal["logits", "hidden"] = "logits"
    hidden: Any | None = None
    adapters: Mapping[int, str] = field(factory=dict)
    alone: bool = False
    watch: bool = False
    greedy: bool = False
    multi_step: MultiStepLimit | None = None
    n: int = field(init=False)  # rows
    _extremes: tuple[int, int] = field(init=False, repr=False)  # of the ids

    def __attrs_post_init__(self) -> None:
        made, ids, rows, runs, hidden = vars(self), self.ids, self.rows, self.runs, self.hidden
        if type(ids) is not list and ids is not None:
            made["ids"] = ids = as_int32(ids)
        if type(rows) is not list:
            made["rows"] = rows = as_int32(rows)
        made["n"] = n = runs[0].n if len(runs) == 1 else sum(run.n for run in runs)
        n_given = len(ids) if ids is not None else 0 if hidden is None else len(hidden)
        if n_given != n or not n or (hidden is not None and len(hidden) != n):
            given = sorted({len(values) for values in (ids, hidden) if values is not None})
            raise BackendError(f"there are runs of {n} rows in all, and {given} rows given", where="batch")
        for sequence, start, n_rows in runs:
            if n_rows < 1 or start < 0 or start + n_rows > MAX_INT32 or not -MAX_INT32 - 1 <= sequence <= MAX_INT32:
                raise BackendError(
                    f"a run of {n_rows} rows from {start} on is none",
                    where=f"batch, sequence {sequence}",
                    fix="give runs of at least one row, with sequences and places that fit into 32 bits",
                )
        if len(runs) > 1 and len({run.sequence for run in runs}) < len(runs):
            raise BackendError("a sequence has more than one run", where="batch")
        if self.watch and len(runs) != 1:
            raise BackendError(f"the attention of {len(runs)} runs cannot be watched, only of one", where="batch")
        if self.multi_step and (not self.greedy or n != 1 or len(rows) != 1):
            raise BackendError("several steps at once begin with a greedy one of one row, and no other", where="batch")
        if ids is not None:
            made["_extremes"] = least, most = extremes(ids)
            if least < -MAX_INT32 - 1 or most > MAX_INT32:
                as_int32(ids)  # which says so
        if len(rows):
            least, most = extremes(rows)
            if least < 0 or most >= n:
                as_int32(rows)
                raise BackendError(f"an output row is outside the {n} rows of the step", where="batch")

    @cached_property
    def tokens(self) -> I32 | None:
        return None if self.ids is None else as_int32(self.ids)

    @cached_property
    def outputs(self) -> I32:
        return as_int32(self.rows)

    @property
    def places(self) -> list[int]:
        """Of each row in its text; made anew each time."""
        if len(self.runs) == 1:
            _, start, n = self.runs[0]
            return [start] if n == 1 else [*range(start, start + n)]
        return [at for _, start, n in self.runs for at in range(start, start + n)]

    @property
    def positions(self) -> I32:
        """The same as an array ``(n,)``."""
        return as_int32(self.places)

    def check_tokens(self, n_vocab: int) -> None:
        """BackendError for an id outside a vocabulary of ``n_vocab``; hidden states have none."""
        if self.ids is None:
            return
        least, most = self._extremes
        if least < 0 or most >= n_vocab:
            outside = next(token for token in self.ids if not 0 <= token < n_vocab)
            raise BackendError(f"token {int(outside)} is outside the vocabulary of {n_vocab}", where="step")

    @classmethod
    def of(cls, tokens: Any, *, position: int = 0, sequence: int = 0, outputs: Any = None) -> Batch:
        """Consecutive ``tokens`` of one sequence from ``position`` on; by default only the last row's logits."""
        n = len(tokens)
        return cls(tokens, (Run(sequence, position, n),), [n - 1] if outputs is None else outputs)


class Best(NamedTuple):
    """What a greedy text needs of a row of logits.

    Attributes:
        token: the likeliest, of equal ones that with the lowest id.
        highest: its logit; NaN where any is.
        lowest: the lowest logit; NaN where any is.
    """

    token: int
    highest: float
    lowest: float

    @classmethod
    def of(cls, logits: F32) -> Best:
        """Of a row ``(n_vocab,)``. For a few values argmax takes a third of the time of max."""
        token = int(logits.argmax())
        return cls(token, float(logits[token]), float(logits[logits.argmin()]))


class Output(NamedTuple):
    """Result of a step: float32 ``(k, n_vocab)`` logits or ``(k, n_embd)`` hidden states, row by row of ``outputs``.

    Attributes:
        attention: where it was asked for (`Batch.watch`), for each layer that looks at the whole text float32
            ``(n_head, n, n_pages)``: the share of each row's attention that the keys of each page have. Empty from a
            backend that cannot tell.
        best: where no more was asked for (`Batch.greedy`), for each of ``outputs``, and no ``values``; empty from a
            backend that gives these all the same. Where it went on by itself (`Batch.multi_step`), of the rows
            after that too: the cache then holds the likeliest tokens of all these rows but the last.
    """

    values: F32
    degraded: bool = False
    attention: tuple[F32, ...] = ()
    best: Sequence[Best] = ()


class Group(NamedTuple):
    """The rows of one sequence within a step.

    Attributes:
        first: the first of its rows within the step; they follow one another.
        n: how many rows.
        pages: page numbers ``(p,)`` of the sequence from its start, int32; token ``t`` lies in page
            ``pages[t // page_size]``. −1 for a page that was given back: none of the rows may look at its tokens. For a
            state that sums up the text these are two: the page to read, −1 where the text begins, and the one to write.
        length: tokens of the sequence including this step; row ``first + j`` has position ``length - n + j``.
    """

    first: int
    n: int
    pages: I32
    length: int

    @property
    def rows(self) -> slice:
        """The group's rows of any array of the step."""
        return slice(self.first, self.first + self.n)


@frozen(eq=False, slots=False)
class Plan:
    """Where a step's rows leave their state and what each row may see: computed once for each kind of state, and read
    by every layer of that kind. The kinds of one step share ``positions`` and ``tokens``.

    Attributes:
        positions: ``(n,)`` place of each row in its text, int32.
        tokens: ``(n,)`` as in the batch: in every layer and stage, or None for hidden states alone.
        slots: ``(n,)`` where each row's key and value are written: ``page * page_size + position % page_size``, int32.
        groups: one for each run of the batch.
        page_size: tokens of a page.
        watch: where each layer that looks at the whole text leaves its part of `Output.attention`, in order; None for
            most steps.
        places, ids, rows: the first three as they were given: a list, or an array.
    """

    places: Ints = field(alias="positions")
    ids: Ints | None = field(alias="tokens")
    rows: Ints = field(alias="slots")
    groups: tuple[Group, ...]
    page_size: int
    watch: list[F32] | None = None

    @cached_property
    def positions(self) -> I32:
        return as_int32(self.places)

    @cached_property
    def tokens(self) -> I32 | None:
        return None if self.ids is None else as_int32(self.ids)

    @cached_property
    def slots(self) -> I32:
        return as_int32(self.rows)
