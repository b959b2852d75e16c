"""Rope keys and what they come to; numbers of YaRN and LongRoPE are those of transformers' `modeling_rope_utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sis_core.block import Rope
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.rope import FACTORS, LONG, SHORT, RopeConfig, rope_frequencies
from sis_core.tensors import Tensors

HEAD, N_CTX = 64, 8192


def read(n_ctx_train: int = N_CTX, **keys: Any) -> RopeConfig:
    """A config from keys below ``x.rope``; double underscores stand for dots."""
    values = {f"x.rope.{key.replace('__', '.')}": value for key, value in keys.items()}
    return RopeConfig.read(Metadata(values, "x", "m.gguf"), HEAD, n_ctx_train)


def rope(config: RopeConfig, n_ctx: int = N_CTX, **factors: Any) -> Rope:
    names = {"long": LONG, "short": SHORT, "plain": FACTORS}
    weights = {names[k]: Weight.from_array(names[k], np.asarray(v, np.float32)) for k, v in factors.items()}
    return config.rope(Tensors(weights, "m.gguf"), "neox", n_ctx)


def test_defaults() -> None:
    assert read() == RopeConfig(64, 10000.0, n_ctx_original=N_CTX)
    np.testing.assert_array_equal(rope(read()).frequencies, rope_frequencies(64, 10000.0))


def test_rotated_part_of_the_head() -> None:
    assert read(dimension_count=16).n_rot == 16
    assert read(dimension_fraction=0.25).n_rot == 16
    assert read(dimension_fraction=0.25, dimension_count=32).n_rot == 32
    for wrong in (15, 66, 0, -2):
        with pytest.raises(ModelError, match=rf"m\.gguf: the key x\.rope\.dimension_count is {wrong}, but must be"):
            read(dimension_count=wrong)


def test_yarn_as_transformers_has_it() -> None:
    config = read(freq_base=1e6, scaling__type="yarn", scaling__factor=4.0, scaling__original_context_length=2048)
    found = rope(config)
    expected = [1.0, 0.023717083, 0.00059284345, 0.00010542412, 1.8747356e-05, 3.8498163e-07]
    np.testing.assert_allclose(found.frequencies[[0, 8, 14, 18, 22, 31]], expected, rtol=1e-6)
    assert found.magnitude == pytest.approx(1.138629436111989)


@pytest.mark.parametrize(
    ("n_ctx", "expected"),
    [(4096, [1.0, 0.042518485, 6.6676075e-05]), (4097, [1.0, 0.0041407552, 3.3338035e-06])],
)
def test_longrope_as_transformers_has_it(n_ctx: int, expected: list[float]) -> None:
    config = read(131072, scaling__original_context_length=4096)
    assert config.scaling == "longrope"
    found = rope(config, n_ctx, long=np.linspace(1, 40, 32), short=np.linspace(1, 2, 32))
    np.testing.assert_allclose(found.frequencies[[0, 10, 31]], expected, rtol=1e-6)
    assert found.magnitude == pytest.approx(1.1902380714238083)


def test_an_original_context_that_is_not_shorter_means_nothing() -> None:
    assert read(4096, scaling__original_context_length=4096).scaling == "none"


def test_factors_of_llama_3() -> None:
    factors = np.linspace(1, 32, 32)
    np.testing.assert_allclose(rope(read(), plain=factors).frequencies, rope_frequencies(64, 10000.0) / factors)
    for wrong in (np.zeros(32), np.full(32, -1.0), np.full(32, np.nan)):
        with pytest.raises(ModelError, match=r"m\.gguf: tensor rope_freqs\.weight must hold numbers above 0"):
            rope(read(), plain=wrong)
    with pytest.raises(ModelError, match=r"rope_freqs\.weight has shape \(16,\), but the metadata call for \(32,\)"):
        rope(read(), plain=factors[:16])


def test_magnitudes_multiply() -> None:
    assert read(scaling__attn_factor=1.5).magnitude == 1.5
    yarn = {"scaling__type": "yarn", "scaling__factor": 4.0}
    assert read(**yarn, scaling__yarn_attn_factor=0.5, scaling__attn_factor=3.0).magnitude == 1.5
    assert read(**yarn, scaling__yarn_log_multiplier=0.5).magnitude == pytest.approx(1.1386294 / 1.0693147)
    assert read(scaling__type="yarn", scaling__factor=0.5).magnitude == 1.0


def test_unknown_scaling() -> None:
    with pytest.raises(ModelError, match=r"the key x\.rope\.scaling\.type is 'dynamic', which is not implemented"):
        read(scaling__type="dynamic")
    with pytest.raises(ModelError, match=r"x\.rope\.scaling\.factor is -2\.0, but must be above 0"):
        read(scaling__factor=-2.0)
