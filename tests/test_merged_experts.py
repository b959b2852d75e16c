"""Files with gates and ups of experts in one tensor run as those with two, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_suite import content, installed, write_golden

from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.numpy import NumpyBackend
from sis_core.block import Network
from sis_core.errors import ModelError
from sis_core.loading.network import build_network
from sis_core.quant import Weight
from sis_core.step import Batch
from sis_core.testing.kernels import kind_of_this_machine

Parts = tuple[dict[str, Any], dict[str, Weight]]


def network(parts: Parts) -> Network:
    keys, weights = parts
    name = keys["general.architecture"]
    return build_network(installed().get("architectures", name), keys, weights, name=name)[1]


def merged(parts: Parts) -> Parts:
    """Gates first in each expert: `create_tensor_gate_up_exps` of llama.cpp 0c1e570, and its converter's option
    ``--fuse-gate-up-exps``."""
    keys, weights = parts
    found = {}
    for name, weight in weights.items():
        both = name.replace("_gate_exps", "_gate_up_exps")
        if both != name:
            up = weights[name.replace("_gate_", "_up_")]
            found[both] = Weight.from_array(both, np.concatenate([weight.dequantize(), up.dequantize()], axis=1))
        elif "_up_exps" not in name:
            found[name] = weight
    assert len(found) < len(weights)
    return keys, found


@pytest.mark.parametrize("golden", ["qwen3moe", "gpt-oss"])
def test_one_tensor_or_two(golden: str, tmp_path: Path) -> None:
    parts = content(write_golden(golden, tmp_path))
    options, ids = BackendOptions(n_threads=1), np.arange(24, dtype=np.int32) * 7 % 200
    kind = kind_of_this_machine()
    for backend in (NumpyBackend(), *([kind()] if kind else [])):
        forwards = [bind(network(each), [backend], options) for each in (parts, merged(parts))]
        grain = "numpy layer" if isinstance(backend, NumpyBackend) else f"{backend.name} forward"
        assert {one for forward in forwards for one in forward.grains} == {grain}
        batch = Batch.of(ids, outputs=range(len(ids)))
        logits = [forward.step(batch, forward.new_cache("f32", 64)).values for forward in forwards]
        np.testing.assert_array_equal(*logits)


def test_both_are_too_many(tmp_path: Path) -> None:
    keys, weights = content(write_golden("qwen3moe", tmp_path))
    with pytest.raises(ModelError, match=r"no use for tensor blk\.0\.ffn_gate_exps\.weight"):
        network((keys, merged((keys, weights))[1] | weights))
