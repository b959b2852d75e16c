"""Configurations that differ from what a family's files can say are refused: nothing is converted to another model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sis_hub.convert.view import CheckpointView

from sis_core.errors import SisError
from sis_core.registry import Registry

REGISTRY = Registry.load()
NO_KEY = "which GGUF has no key for in this family"
NOT_PHI2, NOT_FALCON, NOT_GPT2 = "differs from Phi-2", "differs from the 7B and the 40B", "differs from the original"
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {"use_sliding_window": True}, NO_KEY),
    ("qwen3moe", {"norm_topk_prob": False}, NO_KEY),
    ("qwen3moe", {"mlp_only_layers": [0]}, NO_KEY),
    ("qwen3moe", {"decoder_sparse_step": 2}, NO_KEY),
    ("olmoe", {"clip_qkv": 8.0}, NO_KEY),
    ("olmoe", {"norm_topk_prob": True}, NO_KEY),
    ("olmo3", {"layer_types": None}, "layer_types does not say of each layer"),
    ("starcoder2", {"sliding_window": 64}, NO_KEY),
    ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling of the type 'linear' has no key"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "not 4 numbers each"),
    ("phi2", {"qk_layernorm": True}, NOT_PHI2),
    ("phi2", {"num_key_value_heads": 2}, NOT_PHI2),
    ("phi2", {"intermediate_size": 96}, NOT_PHI2),
    ("gpt_oss", {"layer_types": ["full_attention"] * 2}, "windows elsewhere than in every other layer"),
    ("cohere2", {"layer_types": ["full_attention"] * 3}, "windows elsewhere than in three of four layers"),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "names others than every 4th layer"),
    ("mistral3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "not of the type 'yarn'"),
    ("glm4", {"rope_parameters": {"rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}, "positions of pictures"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is set"),
    ("gpt2", {"n_inner": 96}, NOT_GPT2),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, NOT_GPT2),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": True}, NOT_GPT2),
    ("falcon", {"alibi": True}, NOT_FALCON),  # as of Falcon-RW
    ("falcon", {"bias": True}, NOT_FALCON),
    ("falcon", {"parallel_attn": False}, NOT_FALCON),
    ("falcon", {"ffn_hidden_size": 96}, "ffn_hidden_size is not four times hidden_size"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is set"),
    ("mpt", {"attn_config": {"alibi": True, "qk_ln": True}}, NO_KEY),
    ("mpt", {"attn_config": {"alibi": True, "softmax_scale": 0.5}}, NO_KEY),
    ("mpt", {"logit_scale": 2.0}, NO_KEY),
    ("internlm2", {"bias": True}, "its attention has biases"),
    (
        "hunyuan",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 5000.0}},
        "not those of Hunyuan's own models",
    ),
]


@pytest.mark.parametrize(
    ("name", "values", "said"), CASES, ids=[f"{name}: {[*values][-1]}" for name, values, _ in CASES]
)
def test_it_is_refused(name: str, values: dict[str, Any], said: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(name)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")
    with pytest.raises(SisError, match=said) as error:
        CheckpointView(folder, REGISTRY)
    assert str(folder) in str(error.value)
