"""Falcon: logits of other programs, what every family promises, and the Falcons that are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from family_suite import FamilySuite, content, write_golden
from sis_falcon.falcon import Falcon

from sis_core.errors import ModelError
from sis_core.loading.network import build_network
from sis_core.quant import Weight


class TestFalcon(FamilySuite):
    goldens = ("falcon", "falcon-groups")


@pytest.mark.parametrize(
    ("keys", "tensor", "said"),
    [
        ({"falcon.attention.max_alibi_bias": 8.0}, None, r"what the key falcon\.attention\.max_alibi_bias asks for"),
        ({}, "blk.0.attn_qkv.bias", r"no use for tensor blk\.0\.attn_qkv\.bias"),
        ({}, "blk.0.ffn_norm.weight", r"no use for tensor blk\.0\.ffn_norm\.weight"),
    ],
    ids=["scores that fall with the distance", "biases", "branches one after the other"],
)
def test_falcon_rw_is_refused(keys: dict[str, float], tensor: str | None, said: str, tmp_path: Path) -> None:
    values, weights = content(write_golden("falcon", tmp_path))
    if tensor:
        weights[tensor] = Weight.from_array(tensor, np.ones(64, np.float32))
    with pytest.raises(ModelError, match=said):
        build_network(Falcon(), values | keys, weights, name="falcon")
