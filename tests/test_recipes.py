"""Mixes of formats, beside what llama.cpp's quantize tool gave tensors of small random models (its commit 0c1e570)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from sis_core.discovery.plugin import Plugin
from sis_core.errors import PluginError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.hookspecs import hookimpl
from sis_core.quant import F16Format, QuantFormat
from sis_core.registry import Registry
from sis_core.workbench.quantizer import find_target, make_plan
from sis_core.workbench.quantizer.recipes import RECIPES, Stack, head_formats, is_sensitive

DIGITS = {"4": "Q4_K", "5": "Q5_K", "6": "Q6_K", "8": "Q8_0"}
MODELS = {  # architecture: layers, experts, matrices of a layer
    "phi3": (16, 0, "attn_output attn_qkv ffn_down ffn_up"),
    "gptneox": (12, 0, "attn_output attn_qkv ffn_down ffn_up"),
    "falcon": (32, 0, "attn_output attn_qkv ffn_down ffn_up"),
    "llama": (8, 8, "attn_k attn_output attn_q attn_v ffn_down_exps ffn_gate_exps ffn_up_exps"),
    "qwen2moe": (
        8,
        4,
        "attn_k attn_output attn_q attn_v ffn_down_exps ffn_down_shexp ffn_gate_exps ffn_up_exps ffn_up_shexp",
    ),
}
CHOSEN = [  # architecture, mix, format of the head, and a digit for each layer of matrices that are not all in the base
    ("phi3", "Q4_K_S", "Q6_K", {"attn_qkv": "5555444444444444", "ffn_down": "5544444444444444"}),
    ("phi3", "Q4_K_M", "Q6_K", {"attn_qkv": "6644644644644666", "ffn_down": "6644644644644666"}),
    ("phi3", "Q5_K_S", "Q6_K", {}),
    ("phi3", "Q5_K_M", "Q6_K", {"attn_qkv": "6655655655655666", "ffn_down": "6655655655655666"}),
    ("gptneox", "Q4_K_S", "Q6_K", {"attn_qkv": "555544444444", "ffn_down": "544444444444"}),
    ("gptneox", "Q4_K_M", "Q6_K", {"attn_qkv": "644644644666", "ffn_down": "644644644666"}),
    ("gptneox", "Q5_K_S", "Q6_K", {}),
    ("gptneox", "Q5_K_M", "Q6_K", {"attn_qkv": "655655655666", "ffn_down": "655655655666"}),
    ("falcon", "Q4_K_S", "Q8_0", {"attn_qkv": "55554444444444444444444444444444"}),
    (
        "falcon",
        "Q4_K_M",
        "Q8_0",
        {"attn_qkv": "66664464464464464464464464466666", "ffn_down": "66554454454454454454454454455555"},
    ),
    ("falcon", "Q5_K_S", "Q8_0", {}),
    (
        "falcon",
        "Q5_K_M",
        "Q8_0",
        {"attn_qkv": "66665565565565565565565565566666", "ffn_down": "66665565565565565565565565566666"},
    ),
    (
        "llama",
        "Q4_K_S",
        "Q6_K",
        {"attn_k": "88888888", "attn_output": "55555555", "attn_v": "88888888", "ffn_down_exps": "54444444"},
    ),
    (
        "llama",
        "Q4_K_M",
        "Q6_K",
        {"attn_k": "88888888", "attn_output": "55555555", "attn_v": "88888888", "ffn_down_exps": "64464466"},
    ),
    ("llama", "Q5_K_S", "Q6_K", {"attn_k": "88888888", "attn_v": "88888888"}),
    ("llama", "Q5_K_M", "Q6_K", {"attn_k": "88888888", "attn_v": "88888888", "ffn_down_exps": "65565566"}),
    ("qwen2moe", "Q4_K_S", "Q6_K", {"attn_v": "55554444", "ffn_down_exps": "54444444", "ffn_down_shexp": "54444444"}),
    ("qwen2moe", "Q4_K_M", "Q6_K", {"attn_v": "64464466", "ffn_down_exps": "64464466", "ffn_down_shexp": "64464466"}),
    ("qwen2moe", "Q5_K_S", "Q6_K", {}),
    ("qwen2moe", "Q5_K_M", "Q6_K", {"attn_v": "65565566", "ffn_down_exps": "65565566", "ffn_down_shexp": "65565566"}),
]


@pytest.mark.parametrize(("architecture", "mix", "head", "chosen"), CHOSEN, ids=[f"{a} {m}" for a, m, _, _ in CHOSEN])
def test_types_are_those_of_llama_cpp(architecture: str, mix: str, head: str, chosen: dict[str, str]) -> None:
    n_layer, n_expert, roles = MODELS[architecture]
    names = [f"blk.{i}.{role}.weight" for i in range(n_layer) for role in [*roles.split(), "attn_norm"]]
    stack = Stack.of([*names, "token_embd.weight", "output_norm.weight"], architecture, n_expert)
    for role in roles.split():
        found = [RECIPES[mix].format_of(f"blk.{i}.{role}.weight", stack) for i in range(n_layer)]
        assert found == [DIGITS[digit] for digit in chosen.get(role, mix[1] * n_layer)], role
    assert head_formats(stack)[0] == head


def test_values_are_counted_among_themselves() -> None:
    """In a hybrid only some layers have them."""
    names = [f"blk.{i}.{'attn_v' if i % 2 else 'ssm_in'}.weight" for i in range(16)]
    stack = Stack.of(names)
    found = [RECIPES["Q4_K_M"].format_of(f"blk.{i}.attn_v.weight", stack) for i in range(1, 16, 2)]
    assert [i for i, name in enumerate(found) if name == "Q6_K"] == [i for i in range(8) if is_sensitive(i, 8)]


def test_a_plan_knows_architecture_and_experts(tmp_path: Path) -> None:
    values = {"general.architecture": "falcon", "falcon.expert_count": 8}
    writer = GGUFWriter(tmp_path / "model.gguf", values)
    for name in ("token_embd.weight", "output.weight", "blk.0.attn_k.weight", "blk.0.ffn_down.weight"):
        writer.add_tensor(name, (1, 256), "F32", [np.zeros((1, 256), np.float32)])
    writer.write()
    with GGUFFile.open(tmp_path / "model.gguf") as file:
        plan = make_plan(file, Registry.load(), "q4_k_m")
    found = {tensor.name: tensor.type_name for tensor in plan.tensors}
    assert found["output.weight"] == found["blk.0.attn_k.weight"] == "Q8_0"


def test_a_format_that_two_plugins_claim_is_not_a_spelling_of_a_mix() -> None:
    class Other(F16Format):
        name, type_id = "Q4_K", 12

    class Brought:
        @hookimpl
        def sis_register_quant_formats(self) -> list[QuantFormat]:
            return [Other()]

    registry = Registry([*Registry.load().plugins, Plugin("brought", cast("Any", Brought()))])
    with pytest.raises(PluginError, match="claimed by two plugins") as raised:
        find_target(registry, "q4_k")
    assert "did you mean" not in str(raised.value)
