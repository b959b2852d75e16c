"""Layers that predict further tokens are passed over, by a list of what they have."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_glm
from attrs import evolve

from sis_core.errors import ModelError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.network import build_network
from sis_core.loading.weights import file_weights
from sis_core.quant import Weight
from sis_core.registry import Registry

GOLDEN = Path(__file__).parent / "goldens" / "families" / "glm4moe.gguf.xz"


@pytest.fixture
def parts(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Weight]]:
    """The keys and weights of a GLM-4.5 of three layers and one that predicts a further token."""
    path = tmp_path / "glm4moe.gguf"
    path.write_bytes(lzma.decompress(GOLDEN.read_bytes()))
    with GGUFFile.open(path) as opened:
        keys, weights = dict(opened.metadata), dict(file_weights(opened, Registry.of(sis_glm)))
        weights = {name: Weight.from_array(name, weight.dequantize()) for name, weight in weights.items()}
    more = {name.replace("blk.2.", "blk.3."): weight for name, weight in weights.items() if name.startswith("blk.2.")}
    more["blk.3.nextn.eh_proj.weight"] = Weight.from_array("eh_proj", np.zeros((64, 128), np.float32))
    more |= {f"blk.3.nextn.{n}.weight": Weight.from_array(n, np.ones(64, np.float32)) for n in ("enorm", "hnorm")}
    weights |= {name: evolve(weight, name=name) for name, weight in more.items()}
    return keys | {"glm4moe.block_count": 4, "glm4moe.nextn_predict_layers": 1}, weights


def network(keys: dict[str, Any], weights: dict[str, Weight]) -> Any:
    (glm4moe,) = (family for family in sis_glm.sis_register_architectures() if "glm4moe" in family.names)
    return build_network(glm4moe, keys, weights, name="glm4moe")[1]


def test_they_are_passed_over(parts: tuple[dict[str, Any], dict[str, Weight]]) -> None:
    keys, weights = parts
    found = network(keys, weights)
    assert found.n_layer == 3
    assert not any(weight.name.startswith("blk.3.") for weight in found.weights())


def test_files_may_come_without_them(parts: tuple[dict[str, Any], dict[str, Weight]]) -> None:
    keys, weights = parts
    assert network(keys, {n: w for n, w in weights.items() if not n.startswith("blk.3.")}).n_layer == 3


def test_what_is_not_in_the_list_is_refused(parts: tuple[dict[str, Any], dict[str, Weight]]) -> None:
    keys, weights = parts
    name = "blk.3.nextn.other.weight"
    more = weights | {name: Weight.from_array(name, np.ones(64, np.float32))}
    with pytest.raises(ModelError, match=r"no use for tensor blk\.3\.nextn\.other\.weight"):
        network(keys, more)
    with pytest.raises(ModelError, match="nextn_predict_layers is 4, but must be from 1 to 3"):
        network(keys | {"glm4moe.nextn_predict_layers": 4}, weights)
