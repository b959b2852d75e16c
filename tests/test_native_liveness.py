"""What a step writes down at the same time lies apart; the rest shares memory."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_native_passing import KEPT, feed_forward, op, weight

from sis_core.backends.native import abi, passing
from sis_core.backends.native.library import address
from sis_core.backends.native.liveness import conflicts, phases
from sis_core.backends.native.places import Places

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

N, WIDTH = 3, 64  # registers of programs that are drawn, and their columns: in halves
WEIGHTS = [weight(rows, WIDTH // 2) for rows in (WIDTH // 2, WIDTH)]
FIRST, SECOND, WHOLE = (0, WIDTH // 2), (WIDTH // 2, WIDTH // 2), (0, WIDTH)

registers, halves, parts = (
    st.integers(0, N - 1),
    st.sampled_from([FIRST, SECOND]),
    st.sampled_from([FIRST, SECOND, WHOLE]),
)
Step = tuple[abi.Op, list[tuple[int, int, int]], list[tuple[int, int, int]]]  # an op, what it reads and writes


@st.composite
def steps(draw: Callable[[st.SearchStrategy[object]], object]) -> Step:
    """An op with the columns that it reads and writes: a thing, the first column, how many."""
    kind = draw(st.sampled_from([abi.COPY, abi.ADD_TO, abi.SCALE, abi.PREPARE, abi.LINEAR, abi.ATTEND]))
    src, dst, place = draw(registers), draw(registers), draw(st.integers(0, 1))
    at, width = draw(parts)
    read, written = (src, at, width), (dst, at, width)
    where = {"src_at": at, "dst_at": at, "width": width}
    if kind == abi.COPY:
        return op(kind, src, dst, **where), [read], [written]
    if kind == abi.ADD_TO:
        return op(kind, src, dst, **where), [read, written], [written]
    if kind == abi.SCALE:
        return op(kind, 0, dst, dst_at=at, width=width), [written], [written]
    if kind == abi.PREPARE:
        return op(kind, src, src_at=at, width=width, count=place), [read], [(N + place, 0, WIDTH)]
    if kind == abi.LINEAR:
        at, width = draw(parts)
        linear = op(kind, src, dst, dst_at=at, count=place, weight=WEIGHTS[width == WIDTH])
        return linear, [(N + place, 0, WIDTH)], [(dst, at, width)]
    (at, width), (to, _) = draw(halves), draw(halves)
    attend = op(kind, src, dst, src_at=at, dst_at=to, n_head=2, k_dim=width // 2, v_dim=width // 2)
    return attend, [(src, at, width)], [(dst, to, width), (N + abi.ROOM_PARTS, 0, 0)]


def together(program: Sequence[Step]) -> set[tuple[int, int]]:
    """Pairs of things in use at the same time, found by running the program: who reads what was written when."""
    in_use: dict[int, set[int]] = defaultdict(set)  # of each phase
    bounds = [*phases([step[0] for step in program])]
    phase_of = {i: number for number, (first, stop) in enumerate(bounds) for i in range(first, stop)}
    since: dict[tuple[int, int], int] = {}  # the phase in which a column was written
    for i, (_, read, written) in enumerate(program):
        phase = phase_of[i]
        for thing, at, width in read:
            for column in range(at, at + width):
                for between in range(since.get((thing, column), 0), phase + 1):
                    in_use[between].add(thing)
        for thing, at, width in written:
            in_use[phase].add(thing)
            since.update({(thing, column): phase for column in range(at, at + width)})
    return {(a, b) for things in in_use.values() for a in things for b in things}


@given(st.lists(steps(), min_size=1, max_size=14))
def test_things_are_apart_where_they_are_in_use_at_the_same_time(program: list[Step]) -> None:
    ops = [step[0] for step in program]
    found = conflicts(ops, passing.touched_by(ops), N)
    assert {(int(a), int(b)) for a, b in np.argwhere(found)} == together(program)


def test_prepared_rows_never_go_where_the_last_lie() -> None:
    places, last = Places(), -1
    for width in [32, 32, 64, 32, 64, 64, *range(96, 96 + 32 * abi.PLACES, 32), 32, 32]:
        place = places.take(width)
        assert place in {*range(abi.PLACES)} - {last}
        last = place
    few = Places()
    assert [few.take(width) for width in (32, 64, 32, 32, 64, 32)] == [0, 1, 0, 2, 1, 0]


def test_a_feed_forward_reads_and_writes_places_at_once_where_it_passes() -> None:
    """What comes into gate and up is read while what goes into down is written."""
    ops = feed_forward(weight(64, 32), weight(64, 32))
    for i, place in ((1, 0), (2, 0), (3, 0), (5, 1), (6, 1)):
        ops[i].count = place
    assert not conflicts(ops, passing.touched_by(ops), 4)[4, 5]
    passing.mark(ops, passing.touched_by(ops))
    assert conflicts(ops, passing.touched_by(ops), 4)[4, 5]


def test_experts_may_combine_columns_before_all_are_there() -> None:
    record = abi.Experts(chosen=1, up_values=2, n_out=32)
    ops = [op(kind, 0, 0, experts=ctypes.addressof(record)) for kind in (abi.ROUTE, abi.EXPERTS)]
    ops += [op(abi.COMBINE, 0, 3, experts=ctypes.addressof(record)), op(abi.COPY, 3, 4, width=32)]
    ops = [*ops, op(abi.COPY, 4, abi.OUT, width=32)]
    found = conflicts(ops, passing.touched_by(ops), 5)
    assert found[3, [0, 1, 2, 5 + abi.ROOM_EXPERTS]].all()
    assert found[1, 5 + abi.ROOM_EXPERTS]
    assert not found[1:3, 5 : 5 + abi.ROOM_EXPERTS].any()


def test_prepared_rows_of_strangers_are_apart_from_what_linears_write() -> None:
    linear = abi.LinearObject(prepare=1)
    KEPT.append(abi.Weight(format=abi.FOREIGN, n_rows=32, n_cols=32, linear=ctypes.addressof(linear)))
    at = ctypes.addressof(KEPT[-1])
    ops = [
        op(abi.PREPARE_FOREIGN, 0, weight=at, width=32), op(abi.LINEAR, 0, 1, weight=at),
        op(abi.COPY, 1, 2, width=32), op(abi.COPY, 2, abi.OUT, width=32),
    ]  # fmt: skip
    found = conflicts(ops, passing.touched_by(ops), 3)
    assert found[3 + abi.ROOM_FOREIGN].nonzero()[0].tolist() == [0, 1, 3 + abi.ROOM_FOREIGN]


@given(st.data(), st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_what_is_apart_never_overlaps(data: st.DataObject, sizes: list[int]) -> None:
    n = len(sizes)
    drawn = np.array(data.draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))).reshape(n, n)
    apart = np.ascontiguousarray(drawn | drawn.T, np.uint8)
    n_bytes, at = np.array(sizes, np.uint64) * 64, np.full(n, 7, np.uint64)
    used = X86Backend().library().arrange(n, address(n_bytes), address(apart), address(at))
    ends = at + n_bytes
    assert used == max(ends[n_bytes > 0], default=0)
    assert not (at[n_bytes > 0] % 64).any()
    for i in range(n):
        for j in range(i):
            assert not apart[i, j] or not (n_bytes[i] and n_bytes[j]) or ends[i] <= at[j] or ends[j] <= at[i]
        below = {0, *ends[apart[i].astype(bool)].tolist()}
        assert int(at[i]) in below, "nothing keeps it from lying lower"


def test_what_is_never_apart_lies_in_one_place() -> None:
    n = 3 + abi.N_ROOMS
    n_bytes, at = np.arange(n, dtype=np.uint64) * 64, np.zeros(n, np.uint64)
    for apart, wanted in ((np.eye(n), n_bytes.max()), (np.ones((n, n)), n_bytes.sum())):
        bits = apart.astype(np.uint8)
        assert X86Backend().library().arrange(n, address(n_bytes), address(bits), address(at)) == wanted
