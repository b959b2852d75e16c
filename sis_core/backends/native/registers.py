"""What of its registers a program needs: a row of each for every row of a step is most of what a prompt works in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sis_core.backends.native import abi
from sis_core.backends.native.passing import EVERYTHING, Span, Touched


def needed(ops: Sequence[abi.Op], touched: Sequence[Touched], cols: Sequence[int]) -> list[abi.Register]:
    """Each register as the ops use it, where `passing.mark` has been.

    What passes is not counted: native code adds it in steps where linears do not.

    Args:
        cols: how wide each register may be.
    """
    widths, outputs, gathered = [0] * len(cols), [True] * len(cols), False
    widths[0], outputs[0] = cols[0], False  # a step's hidden states are written there
    for i, op in enumerate(ops):
        if op.kind == abi.LINEAR and op.flags & abi.PASSES:
            outputs[op.dst] &= gathered  # for steps in which it does not
        for span in _in_any_step(ops, touched, i):
            outputs[span.register] &= gathered
            widths[span.register] = max(widths[span.register], min(span.stop, cols[span.register]))
        if op.kind == abi.GATHER:
            gathered = True
            widths[op.dst] = max(widths[op.dst], op.width)
    return [abi.Register(cols, output) for cols, output in zip(widths, outputs, strict=True)]


def _in_any_step(ops: Sequence[abi.Op], touched: Sequence[Touched], at: int) -> Iterator[Span]:
    """The columns of registers that an op reads or writes in any step; not what it gathers into."""
    op = ops[at]
    passed = at > 0 and ops[at - 1].flags & abi.PASSES and op.kind in (abi.ACT, abi.PREPARE)
    spans = [] if passed else [*touched[at].read]
    if not op.flags & abi.PASSES and op.kind != abi.GATHER:
        spans += touched[at].written
    if op.kind in (abi.ROUTE, abi.EXPERTS, abi.COMBINE):
        record = abi.Experts.from_address(op.experts)
        spans += [Span(number, 0, EVERYTHING) for number in (record.chosen, record.up_values)]
    return (span for span in spans if span.register != abi.OUT)
