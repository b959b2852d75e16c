"""What is mapped before it is needed."""

from __future__ import annotations

import mmap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sis_core.arrays import U8
from sis_core.backends.native.ahead import GAP, spans
from sis_core.backends.native.library import address


def mapped(path: Path) -> U8:
    """Two rows of pages that lie in a file."""
    path.write_bytes(bytes(2 * mmap.PAGESIZE))
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8).reshape(2, -1)


def test_rows_of_a_file_are_one_piece_where_little_lies_between(tmp_path: Path) -> None:
    rows = mapped(tmp_path / "file")
    start = address(rows)
    assert spans([rows[1:], rows[:1, :10]]) == [(start, start + 2 * mmap.PAGESIZE)]
    assert spans([rows[:0]]) == []
    far = np.lib.stride_tricks.as_strided(rows[:1], (2, 10), (GAP + 11, 1), writeable=False)
    assert len(spans([far[:1], far[1:]])) == 2


def test_what_lies_between_two_files_is_not_read(tmp_path: Path) -> None:
    """It may be a hole."""
    files = sorted((mapped(tmp_path / str(i)) for i in range(16)), key=address)
    side_by_side = [pair for pair in pairwise(files) if address(pair[1]) - address(pair[0]) <= GAP]
    if not side_by_side:
        pytest.skip("this system maps files apart from each other")
    for pair in side_by_side:
        assert len(spans(pair)) == 2
