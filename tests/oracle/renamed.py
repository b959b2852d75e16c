"""Checkpoints of families that transformers does not have, from the same model under other names.

Source of the layouts: llama.cpp's `conversion/internlm.py` and `conversion/baichuan.py`, which take them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

State = dict[str, torch.Tensor]


def internlm2(state: State, config: Any) -> State:
    """LLaMA's tensors as InternLM 2 has them: q, k and v of a group of heads beside each other."""
    names = {
        "model.embed_tokens": "model.tok_embeddings",
        "lm_head": "output",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    n_kv, head_dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    found = {}
    for name, tensor in state.items():
        if "q_proj" in name:
            parts = [
                state[name.replace("q_proj", part)].reshape(n_kv, -1, head_dim, config.hidden_size)
                for part in ("q_proj", "k_proj", "v_proj")
            ]
            name = name.replace("self_attn.q_proj", "attention.wqkv")
            tensor = torch.cat(parts, dim=1).reshape(-1, config.hidden_size)
        elif "k_proj" in name or "v_proj" in name:
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[name] = tensor.contiguous()
    return found


def baichuan(state: State, _config: Any) -> State:
    """LLaMA's tensors as Baichuan has them: q, k and v are one."""
    found = {}
    for name, tensor in state.items():
        if "q_proj" in name:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            found[name.replace("q_proj", "W_pack")] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            found[name] = tensor
    return found


RENAMED: dict[str | None, Callable[[State, Any], State]] = {
    "InternLM2ForCausalLM": internlm2,
    "BaichuanForCausalLM": baichuan,
}
