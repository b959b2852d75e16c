"""Fields of bits against reading them bit by bit, with Python's own integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sis_core.errors import FormatError
from sis_core.fields import Bits, read_numbers


def one_by_one(run: Bits, block: bytes, n: int) -> list[int]:
    number = int.from_bytes(block, "little")
    low = [number >> (8 * run.at + run.shift + i * (run.stride or run.bits)) & ((1 << run.bits) - 1) for i in range(n)]
    if run.high is None:
        return low
    return [a | b << run.bits for a, b in zip(low, one_by_one(run.high, block, n), strict=True)]


@given(
    st.integers(0, 5), st.integers(1, 8), st.integers(0, 24), st.integers(0, 9), st.integers(1, 19), st.data(),
)  # fmt: skip
def test_a_run_is_read_as_its_definition_says(
    at: int, bits: int, stride: int, shift: int, n: int, data: st.DataObject
) -> None:
    high = Bits(data.draw(st.integers(0, 3)), data.draw(st.integers(1, 8 - bits)), 8) if bits < 8 else None
    run = Bits(at, bits, stride, shift, high)
    blocks = np.random.default_rng(n).integers(0, 256, (3, run.end(n)), np.uint8)
    wanted = [one_by_one(run, bytes(block), n) for block in blocks]
    assert run.read(blocks, n).tolist() == wanted


def test_the_end_of_a_run_is_the_byte_behind_it() -> None:
    assert Bits(2, 4, 8, 4).end(16) == 18
    assert Bits(0, 3).end(8) == 3
    assert Bits(0, 4, high=Bits(9, 1)).end(16) == 11


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"at": -1}, "at of Bits is -1. Give a whole number from 0 on"),
        ({"at": "x"}, "at of Bits is 'x'"),
        ({"bits": 0}, "bits of Bits is 0. Give a whole number from 1 to 32"),
        ({"bits": 4.0}, "bits of Bits is 4.0"),
        ({"bits": True}, "bits of Bits is True"),
        ({"shift": -1}, "shift of Bits is -1"),
        ({"stride": -8}, "stride of Bits is -8"),
        ({"high": 1}, "high of Bits is 1. Give Bits, or None"),
        ({"bits": 5, "high": Bits(0, 4)}, "holds numbers of 9 bits. Let them have 8 at most"),
    ],
)
def test_runs_that_cannot_be_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Bits(**({"at": 0, "bits": 4} | bad))


def test_small_floats_and_whole_numbers() -> None:
    blocks = np.array([[0x00, 0x3C, 0x80, 0x3F, 0x80, 0x38, 0x7F, 0x01, 0xF2]], np.uint8)
    assert read_numbers("f16", [Bits(0, 16)], blocks, 1).tolist() == [[1.0]]
    assert read_numbers("bf16", [Bits(2, 16)], blocks, 1).tolist() == [[1.0]]
    assert read_numbers("e8m0", [Bits(4, 8)], blocks, 1).tolist() == [[2.0]]
    assert read_numbers("ue4m3", [Bits(5, 8)], blocks, 3).tolist() == [[1.0, 0.0, 2**-9]]
    assert read_numbers("int", [Bits(8, 4)], blocks, 2).tolist() == [[2, -1]]
    assert read_numbers("uint", [Bits(8, 4)], blocks, 2).tolist() == [[2, 15]]
    assert read_numbers("f16", [Bits(0, 16), Bits(2, 16)], blocks, 2).tolist() == [[1.0, 1.875]]
