"""`check_eviction` finds faults: each eviction here is wrong in one way, and is told so in plain words."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import pytest

from sis_core.arrays import F32
from sis_core.cache.snapkv import SnapKV
from sis_core.eviction import Eviction
from sis_core.testing import check_eviction


def rate(attention: Sequence[F32]) -> F32:
    scores: F32 = np.sum([layer.sum((0, 1)) for layer in attention], axis=0)
    return scores


def evicting(rate: Callable[[Sequence[F32]], Any], **names: Any) -> type[Eviction]:
    """An eviction class with this ``rate``."""
    names = {"name": "wrong", "keep": 64, "window": 8} | names
    return type("Wrong", (Eviction,), {"rate": lambda self, attention: rate(attention), **names})


def test_good_evictions_pass() -> None:
    check_eviction(evicting(rate))
    check_eviction(SnapKV)
    check_eviction(SnapKV, keep=64, window=1)


def consumes(attention: Sequence[F32]) -> F32:
    scores = rate(attention)
    attention[0][...] = 0
    return scores


@attrs.frozen
class Unhelpful(Eviction):
    name = "wrong"
    keep: int = 64
    window: int = 8

    def rate(self, attention: Sequence[F32]) -> F32:
        return rate(attention)


FAULTS: dict[str, tuple[type[Eviction], str]] = {
    "a number too few": (evicting(lambda a: rate(a)[1:]), "gave float32 of shape (2,), not a number for each of 3"),
    "whole numbers": (evicting(lambda a: rate(a).astype(int)), "gave int64 of shape (3,)"),
    "not finite": (evicting(lambda a: rate(a) / 0), "gave numbers that are not finite"),
    "chance": (evicting(lambda a: rate(a) + random.random()), "rates the same attention differently"),
    "consumes": (evicting(consumes), "changed the attention that it was given"),
    "the least": (evicting(lambda a: -rate(a)), "does not prefer the page that every row of every head looks at"),
    "one layer": (evicting(lambda a: np.stack(a).sum((0, 1, 2))), ""),
    "no window": (evicting(rate, window=0), "window is 0, not a number of tokens"),
    "a long window": (evicting(rate, window=33), "looks at 33 tokens, more than the 32 of a page"),
    "no name": (evicting(rate, name=None), "has no name"),
    "no help": (Unhelpful, 'the option keep has no help: give metadata={"help": ...}'),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str) -> None:
    eviction, message = FAULTS[fault]
    if fault == "one layer":  # layers may differ in their heads
        with pytest.raises(ValueError, match="same shape"):
            check_eviction(eviction)
        return
    with pytest.raises(AssertionError) as caught:
        check_eviction(eviction)
    assert message in str(caught.value)
