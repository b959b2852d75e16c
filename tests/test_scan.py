"""The scan for NaN and infinity; whole files are in test_model_refusals.py."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from sis_core.errors import ModelError
from sis_core.quant import F16Format, Weight
from sis_core.workbench.scan import check_weights


def weight(name: str, *damage: float) -> Weight:
    values = np.ones((300, 1000), np.float32)
    for i, value in enumerate(damage):
        values[280 + i, 7] = value
    return Weight.from_array(name, values, F16Format())


def test_sound_weights_pass_and_are_given_back() -> None:
    released: list[str] = []
    weights = [evolve(weight(name), release=lambda name=name: released.append(name)) for name in "ab"]
    check_weights(weights)
    assert released == ["a", "b"]


def test_the_first_damage_of_each_tensor_is_named() -> None:
    weights = [weight("a"), weight("b", np.nan), weight("c", np.inf, np.nan)]
    with pytest.raises(ModelError) as caught:
        check_weights(weights, "m.gguf")
    assert str(caught.value).startswith(
        "m.gguf: values that are NaN or infinite in tensor b (F16, row 280, column 7), c (F16, row 280, column 7). "
    )


def test_many_damaged_tensors_are_counted() -> None:
    with pytest.raises(ModelError, match=r"c \(F16, row 280, column 7\) and 2 more"):
        check_weights([weight(name, -np.inf) for name in "abcde"])
