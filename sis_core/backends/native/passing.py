"""Which results pass from one op to the next and are read by nobody else: registers need not hold them.

Found from the ops themselves, whatever family they come from. See ``SIS_PASSES`` in `include/sis/program.h`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sis_core.backends.native import abi

BY_ROW = frozenset({abi.NORM, abi.ACT, abi.MULTIPLY, abi.HADAMARD})  # what may come before a PREPARE
IN_PLACE = frozenset({abi.ADD_TO, abi.ROPE, abi.SCALE, abi.CLAMP})
ELSEWHERE = frozenset({abi.PREPARE, abi.PREPARE_FOREIGN, abi.STORE, abi.ROUTE, abi.EXPERTS})  # they write no `dst`
EVERYTHING = 1 << 31
STRANGE = frozenset({abi.ROUTE, abi.EXPERTS, abi.COMBINE})  # they read registers that only their records name


class Span(NamedTuple):
    """Columns ``[first, stop)`` of a register."""

    register: int
    first: int
    stop: int


class Touched(NamedTuple):
    """What an op reads, or more, and what it writes, or less."""

    read: tuple[Span, ...]
    written: tuple[Span, ...]


def touched_by(ops: Sequence[abi.Op]) -> list[Touched]:
    """What each of the ops reads and writes."""
    return [Touched(tuple(reads(op)), tuple(writes(op))) for op in ops]


def mark(ops: Sequence[abi.Op], touched: Sequence[Touched]) -> None:
    """Set `abi.PASSES` wherever it holds: once, on a whole program."""
    for i, op in enumerate(ops):
        if op.kind != abi.PREPARE or not i or not _passes(ops, touched, i - 1):
            continue
        last = ops[i - 1]
        last.flags |= abi.PASSES
        if last.kind == abi.ACT:
            _mark_linears(ops, touched, i - 1)


def _passes(ops: Sequence[abi.Op], touched: Sequence[Touched], at: int) -> bool:
    op, reader = ops[at], ops[at + 1]
    if op.kind not in BY_ROW or op.flags & abi.ADD or (op.kind == abi.NORM and op.count > 1):
        return False
    (written,) = touched[at].written
    return written == Span(reader.src, reader.src_at, reader.src_at + reader.width) and _is_dead(
        touched, at + 2, written
    )


def _mark_linears(ops: Sequence[abi.Op], touched: Sequence[Touched], at: int) -> None:
    """Those that the activation there reads, if they are a phase and nobody else reads what they write."""
    read = touched[at].read
    first = at - len(read)
    linears = ops[max(first, 0) : at]
    if first < 1 or ops[first - 1].kind == abi.LINEAR:
        return
    for i, span in enumerate(read, first):
        linear = ops[i]
        if linear.kind != abi.LINEAR or linear.flags & abi.ADD or _format(linear) == abi.FOREIGN:
            return
        if touched[i].written != (span,) or not _is_dead(touched, at + 2, span):
            return
    for linear in linears:
        linear.flags |= abi.PASSES


def _is_dead(touched: Sequence[Touched], at: int, span: Span) -> bool:
    """Whether no op from there on reads any of it before it is written again."""
    alive = [span]
    for op in islice(touched, at, None):
        if any(_overlap(read, part) for read in op.read for part in alive):
            return False
        for written in op.written:
            alive = [rest for part in alive for rest in _without(part, written)]
        if not alive:
            break
    return True


def _overlap(a: Span, b: Span) -> bool:
    return a.register == b.register and a.first < b.stop and b.first < a.stop


def _without(whole: Span, taken: Span) -> Sequence[Span]:
    """What is left of a span, in order."""
    if not _overlap(whole, taken):
        return (whole,)
    register, first, stop = whole
    rest = (Span(register, first, taken.first), Span(register, taken.stop, stop))
    return [part for part in rest if part.first < part.stop]


def _format(linear: abi.Op) -> int:
    return int(abi.Weight.from_address(linear.weight).format)


def reads(op: abi.Op) -> Iterator[Span]:
    """The columns that an op reads, or more."""
    if op.kind == abi.LINEAR:
        weight = abi.Weight.from_address(op.weight)
        if weight.format in (abi.DECODED, abi.FOREIGN):
            yield Span(op.src, op.src_at, op.src_at + weight.n_cols)
    elif op.kind == abi.STORE:
        yield Span(op.src, op.src_at, op.src_at + op.n_head_kv * op.k_dim)
        yield Span(op.src2, op.src2_at, op.src2_at + op.n_head_kv * op.v_dim)
    elif op.kind == abi.ATTEND:
        yield Span(op.src, op.src_at, op.src_at + op.n_head * op.k_dim)
    elif op.kind in STRANGE:
        yield Span(op.src, 0, EVERYTHING)
    elif op.kind not in (abi.ROPE, abi.SCALE, abi.CLAMP, abi.TAKE):
        yield Span(op.src, op.src_at, op.src_at + _width(op))
    if op.kind == abi.GATE or (op.kind == abi.ACT and op.flags & abi.GATED):
        yield Span(op.src2, op.src2_at, op.src2_at + (1 if op.kind == abi.GATE else op.width))
    if op.kind in IN_PLACE or op.flags & abi.ADD:
        yield Span(op.dst, op.dst_at, op.dst_at + _width(op))


def writes(op: abi.Op) -> Iterator[Span]:
    """The columns that an op writes, or fewer."""
    if op.kind not in ELSEWHERE:
        yield Span(op.dst, op.dst_at, op.dst_at + _width(op))


def _width(op: abi.Op) -> int:
    """Columns of what an op writes."""
    if op.kind == abi.LINEAR:
        return int(abi.Weight.from_address(op.weight).n_rows)
    if op.kind == abi.ATTEND:
        return int(op.n_head * op.v_dim)
    if op.kind == abi.TAKE:
        return int(abi.Weight.from_address(op.weight).n_cols)
    if op.kind == abi.COMBINE:
        return int(abi.Experts.from_address(op.experts).n_out)
    return int(op.width * (op.count if op.kind in (abi.NORM, abi.ROPE) else 1))
