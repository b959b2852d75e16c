"""All a sampler's author has to test: the contract, and what the sampler is for."""

from __future__ import annotations

import numpy as np
import sis_no_repeat

from sis_core.registry import Registry
from sis_core.sampler import SamplerContext
from sis_core.testing import check_sampler
from sis_core.texts.chain_text import make_chain


def test_contract() -> None:
    check_sampler(sis_no_repeat.NoRepeat)


def test_never_the_same_three_tokens_twice() -> None:
    (sampler,) = make_chain(Registry.of(sis_no_repeat), samplers="no-repeat=3")
    state = sampler.start(SamplerContext(10, [1, 2, 3, 4, 1]))
    state.accept(2)
    logits = np.zeros(10, np.float32)
    state.apply(logits)
    assert np.flatnonzero(logits == -np.inf).tolist() == [3]
