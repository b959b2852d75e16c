"""Phases as Python takes them (`liveness.py`) are those that native code runs (`native/phases.c`)."""

from __future__ import annotations

import ctypes
import importlib.util

import pytest
from c_units import NATIVE, built
from hypothesis import given
from hypothesis import strategies as st

from sis_core.backends.native import abi
from sis_core.backends.native.liveness import phases

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang, which builds, is missing")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = built(tmp_path_factory.mktemp("phases"), NATIVE / "phases.c")
    library.end_of_phase.argtypes = [ctypes.POINTER(abi.Program), ctypes.c_uint32]
    library.end_of_phase.restype = ctypes.c_uint32
    return library


@given(st.lists(st.tuples(st.integers(0, 19), st.booleans()), min_size=1, max_size=20))
def test_a_phase_ends_where_native_code_ends_it(native: ctypes.CDLL, drawn: list[tuple[int, bool]]) -> None:
    """But for the phases that it makes one of in some steps."""
    ops = [abi.Op(kind=kind, flags=abi.PASSES if passes else 0) for kind, passes in drawn]
    listed = (abi.Op * len(ops))(*ops)
    program = abi.Program(n_ops=len(ops), ops=ctypes.addressof(listed))
    wanted, first = [], 0
    while first < len(ops):
        stop = native.end_of_phase(program, first)
        joined = ops[first].kind == abi.EXPERTS or (ops[first].kind == abi.LINEAR and ops[first].flags & abi.PASSES)
        if joined and stop < len(ops):
            stop = native.end_of_phase(program, stop)
        wanted.append((first, stop))
        first = stop
    assert [*phases(ops)] == wanted
