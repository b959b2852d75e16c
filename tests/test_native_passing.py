"""Which results pass from one op to the next."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from sis_core.backends.native import abi, passing

KEPT: list[abi.Weight] = []


def weight(n_rows: int, n_cols: int, format: int = abi.FORMATS["Q8_0"]) -> int:
    KEPT.append(abi.Weight(format=format, n_rows=n_rows, n_cols=n_cols))
    return ctypes.addressof(KEPT[-1])


def op(kind: int, src: int = 0, dst: int = 0, flags: int = 0, **values: Any) -> abi.Op:
    return abi.Op(kind=kind, src=src, dst=dst, flags=flags, **values)


def feed_forward(gate: int, up: int, **changes: Any) -> list[abi.Op]:
    """x is register 0, what is normalised 1; gate and up are 2 and 3."""
    return [
        op(abi.NORM, 0, 1, width=32, count=1),
        op(abi.PREPARE, 1, width=32),
        op(abi.LINEAR, 1, 2, weight=gate),
        op(abi.LINEAR, 1, 3, weight=up),
        op(abi.ACT, 2, 3, abi.GATED, src2=3, width=64, **changes),
        op(abi.PREPARE, 3, width=64),
        op(abi.LINEAR, 3, 0, abi.ADD, weight=weight(32, 64)),
    ]


def passed(ops: Sequence[abi.Op]) -> list[int]:
    passing.mark(ops, passing.touched_by(ops))
    return [i for i, op in enumerate(ops) if op.flags & abi.PASSES]


def test_a_feed_forward_passes_all_that_is_within() -> None:
    ops = feed_forward(weight(64, 32), weight(64, 32))
    assert passed(ops) == [0, 2, 3, 4]
    assert passed([*feed_forward(weight(64, 32), weight(64, 32)), op(abi.COPY, 0, abi.OUT, width=32)]) == [0, 2, 3, 4]


def test_without_a_gate_one_linear_passes() -> None:
    ops = feed_forward(weight(64, 32), weight(64, 32))
    del ops[2]
    ops[3] = op(abi.ACT, 3, 3, width=64)
    assert passed(ops) == [0, 2, 3]


def test_what_is_read_again_does_not_pass() -> None:
    for register, wanted in ((1, [2, 3, 4]), (2, [0, 4]), (3, [0])):
        ops = [*feed_forward(weight(64, 32), weight(64, 32)), op(abi.COPY, register, abi.OUT, src_at=31, width=1)]
        assert passed(ops) == wanted
        written = op(abi.COPY, 0, register, dst_at=31, width=1)
        ops = [*feed_forward(weight(64, 32), weight(64, 32)), written, ops[-1]]
        assert passed(ops) == [0, 2, 3, 4]


def test_only_whole_results_of_packed_linears_pass() -> None:
    assert passed(feed_forward(weight(64, 32), weight(80, 32))) == [0, 4]  # sixteen rows more than are read
    assert passed(feed_forward(weight(64, 32, abi.FOREIGN), weight(64, 32))) == [4]  # it reads the norm's rows
    assert passed(feed_forward(weight(64, 32), weight(64, 32), src_at=16)) == [0, 4]
    ops = feed_forward(weight(64, 32), weight(64, 32))
    ops[5].src_at = 16
    assert passed(ops) == [0]


def test_a_third_linear_of_the_phase_keeps_the_others() -> None:
    ops = feed_forward(weight(64, 32), weight(64, 32))
    ops.insert(2, op(abi.LINEAR, 1, 4, weight=weight(64, 32)))
    assert passed(ops) == [0, 5]
