"""What a batch refuses."""

from __future__ import annotations

import numpy as np
import pytest

from sis_core.errors import BackendError
from sis_core.step import Batch


@pytest.mark.parametrize("wrong", [[2**31], [-(2**31) - 1], np.array([2**40])], ids=str)
def test_numbers_of_a_batch_have_32_bits(wrong: object) -> None:
    for place in range(4):
        rows: list[object] = [[1], [0], [0], [0]]
        rows[place] = wrong
        with pytest.raises(BackendError, match="token, position, sequence or output does not fit into 32 bits"):
            Batch(*rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([1, 2], [0], [0], []), r"lengths \[1, 2\]"),
        (([], [], [], []), r"lengths \[0\]"),
        ((None, [0], [0], []), r"lengths \[-1, 1\]"),
        (([1], [0], [0], [1]), "an output row is outside the 1 rows of the step"),
        (([1], [0], [0], [-1]), "an output row is outside the 1 rows of the step"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_fit_together(rows: tuple[object, ...], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Batch(*rows)  # type: ignore[arg-type]
