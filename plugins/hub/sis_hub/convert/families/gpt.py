"""GPT-2 and GPT-NeoX."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import GELU, TANH, plain_rope
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _gpt2(config: Hyperparameters, keys: Any) -> Extra:
    n_embd = config.integer("n_embd", "hidden_size")
    n_ff = config.find("n_inner") or 4 * n_embd
    if n_ff != 4 * n_embd or config.find("scale_attn_by_inverse_layer_idx") or config.find("reorder_and_upcast_attn"):
        raise config.refuse("this GPT-2 differs from the original in its feed-forward or its attention")
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer("n_ctx", "n_positions"))
    keys.add_embedding_length(n_embd)
    keys.add_feed_forward_length(n_ff)
    keys.add_head_count(config.integer("n_head", "num_attention_heads"))
    keys.add_layer_norm_eps(config.number("layer_norm_epsilon"))
    return {}


def _gptneox(config: Hyperparameters, keys: Any) -> Extra:
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer("max_position_embeddings"))
    keys.add_embedding_length(config.integer("hidden_size"))
    keys.add_feed_forward_length(config.integer("intermediate_size"))
    keys.add_rope_dimension_count(int(config.rope.get("partial_rotary_factor", 0.25) * config.head_dim))
    keys.add_head_count(config.integer("num_attention_heads"))
    keys.add_parallel_residual(bool(config.values.get("use_parallel_residual", True)))
    keys.add_layer_norm_eps(config.number("layer_norm_eps"))
    plain_rope(config, keys, written=False)
    return {}


FAMILIES = {
    "GPT2LMHeadModel": Family("gpt2", _gpt2, TANH, {"layer_norm_epsilon": 1e-5}),
    "GPTNeoXForCausalLM": Family(
        "gptneox", _gptneox, GELU, {"layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 10_000}
    ),
}
