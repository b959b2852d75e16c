"""Transforms against the matrices that they stand for."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from sis_core.arrays import F64
from sis_core.errors import FormatError
from sis_core.transform import Hadamard, PerColumn


def sylvester(n: int) -> F64:
    matrix: F64 = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(n))


@pytest.mark.parametrize("size", [2, 8, 64])
def test_hadamard_is_the_matrix_of_sylvester(size: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)
    wanted = (x.astype(np.float64).reshape(3, -1, size) @ sylvester(size)).reshape(3, 128)
    transform = Hadamard(size)
    np.testing.assert_allclose(transform.apply(x, {}), wanted, atol=1e-6)
    np.testing.assert_allclose(transform.apply(transform.own(x), {}), x, atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 3, 48, -4, 64.0, "64", True])
def test_sizes_that_are_no_power_of_two_are_refused(size: Any) -> None:
    with pytest.raises(FormatError, match="power of two"):
        Hadamard(size)


def test_rows_that_are_not_whole_pieces_are_refused() -> None:
    with pytest.raises(FormatError, match="rows of 96 values"):
        Hadamard(64).apply(np.zeros((1, 96), np.float32), {})


def test_a_side_has_a_name() -> None:
    with pytest.raises(FormatError, match="side of PerColumn is 3"):
        PerColumn(cast(Any, 3))


def test_columns_are_multiplied_by_the_side() -> None:
    x = np.ones((2, 3), np.float32)
    side = np.array([1, 2, 3], np.float32)
    transform = PerColumn("scale")
    assert transform.apply(x, {"scale": side}).tolist() == [[1, 2, 3]] * 2
    assert transform.own(x) is x
    with pytest.raises(FormatError, match="'scale', is missing"):
        transform.apply(x, {})
