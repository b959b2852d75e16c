"""Parameters of a file: all of them, those of a token, and those that predict further ahead."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
from model_drafts import Draft, type_id

from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend
from sis_core.cli.doctor import _expected
from sis_core.gguf_file import TensorInfo
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.testing.models import write_model
from sis_core.texts.language_model import LanguageModel
from sis_core.workbench.parameters import Parameters

KEYS = {"general.architecture": "moe", "moe.block_count": 2, "moe.expert_count": 8, "moe.expert_used_count": 2}


def tensors(**more: tuple[int, ...]) -> dict[str, TensorInfo]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (100, 8),
        "output.weight": (100, 8),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.ffn_up_exps.weight": (8, 4, 8),
        "blk.1.nextn.eh_proj.weight": (8, 16),
        "blk.1.attn_q.weight": (8, 8),
    } | more
    return {name: TensorInfo(name, shape, 0, "F32", 0, 4 * prod(shape)) for name, shape in shapes.items()}


def of(keys: dict[str, Any], **more: tuple[int, ...]) -> Parameters:
    return Parameters.of(tensors(**more), KEYS | keys)


def test_experts_count_by_their_share() -> None:
    found = of({"moe.nextn_predict_layers": 1})
    assert (found.total, found.active) == (800 + 800 + 64 + 256, 800 + 800 + 64 + 64)
    assert found.active_nbytes == 4 * (800 + 64 + 64)
    assert found.ignored == ("blk.1.nextn.eh_proj.weight", "blk.1.attn_q.weight")


def test_what_sees_does_not_count() -> None:
    tower: dict[str, tuple[int, ...]] = {"v.blk.0.attn_q.weight": (8, 8), "mm.0.weight": (8, 8)}
    found = of({}, **tower)
    assert found.towers == tuple(tower)
    assert (found.total, found.active_nbytes) == (of({}).total, of({}).active_nbytes)


def test_a_tied_table_is_read_whole() -> None:
    held = tensors()
    del held["output.weight"]
    assert Parameters.of(held, KEYS).active_nbytes == 4 * (800 + 64 + 64 + 64)


def test_keys_of_a_stranger() -> None:
    for value in (0, -1, True, "many", 2**64, [1]):
        found = of({"moe.expert_count": value, "moe.nextn_predict_layers": value, "moe.block_count": value})
        assert found.active <= found.total


@pytest.mark.parametrize("decode", [True, False])
def test_what_python_decodes_is_not_as_fast_as_memory(
    decode: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = Draft.read(write_model(tmp_path / "plain.gguf"), "plain")
    draft.tensors["blk.0.attn_q.weight"] = draft.tensors["blk.0.attn_q.weight"].fitted((256, 256), type_id("IQ2_XXS"))
    path = tmp_path / "grids.gguf"
    path.write_bytes(draft.encoded())
    registry = Registry.load()
    with open_model(LanguageModel, path, registry, options=BackendOptions(decode=decode)) as model:
        if not isinstance(model.backends[0], NativeBackend):
            pytest.skip("no native backend for this machine")
        _expected(model)
    shown = capsys.readouterr().out
    assert ("tokens/s of one text" in shown) == decode
    assert ("Python decodes some of them in each step" in shown) != decode
