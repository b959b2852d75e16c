"""What a batch refuses."""

from __future__ import annotations

import numpy as np
import pytest

from sis_core.errors import BackendError
from sis_core.step import Batch, Run

ONE = (Run(0, 0, 1),)


@pytest.mark.parametrize("wrong", [[2**31], [-(2**31) - 1], np.array([2**40])], ids=str)
def test_numbers_of_a_batch_have_32_bits(wrong: object) -> None:
    for tokens, outputs in ((wrong, [0]), ([1], wrong)):
        with pytest.raises(BackendError, match="token, position, sequence or output does not fit into 32 bits"):
            Batch(tokens, ONE, outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "run", [Run(2**31, 0, 1), Run(-(2**31) - 1, 0, 1), Run(0, 2**31 - 1, 1), Run(0, -1, 1), Run(0, 0, 0)], ids=str
)
def test_a_run_that_is_none(run: Run) -> None:
    with pytest.raises(BackendError, match=rf"a run of {run.n} rows from {run.start} on is none"):
        Batch([1, 2], (Run(5, 0, 2 - run.n), run), [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([1, 2], ONE, []), r"runs of 1 rows in all, and \[2\] rows given"),
        (([], (), []), "runs of 0 rows"),
        ((None, ONE, []), r"and \[\] rows given"),
        (([1], ONE, [], "hidden", np.zeros((2, 4))), r"and \[1, 2\] rows given"),
        (([1, 2], (Run(3, 0, 1), Run(3, 1, 1)), []), "a sequence has more than one run"),
        (([1], ONE, [1]), "an output row is outside the 1 rows of the step"),
        (([1], ONE, [-1]), "an output row is outside the 1 rows of the step"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_fit_together(rows: tuple[object, ...], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Batch(*rows)  # type: ignore[arg-type]


def test_positions_of_runs() -> None:
    assert Batch([0] * 5, (Run(7, 3, 3), Run(1, 9, 2)), []).positions.tolist() == [3, 4, 5, 9, 10]
    assert Batch.of([0] * 3, position=6).positions.tolist() == [6, 7, 8]
