"""The families whose configuration can be told in GGUF's keys, by the class that config.json names.

Keys and their values are those that llama.cpp's converters write (conversion/*.py in its sources); what a configuration
asks for beyond them is written too where GGUF has a key, and refused where it has none. How tensors are laid out is the
matter of the family's own plugin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.errors import SourceError
from sis_hub.convert.hyperparameters import Hyperparameters

Extra = Mapping[str, F32]
"""Tensors that follow from the configuration."""


@frozen
class Family:
    """How one family is converted.

    Attributes:
        architecture: its name in GGUF.
        keys: writes its keys with the ``gguf`` package's writer, and returns the tensors that follow from them.
        activations: the only ones of its feed-forward that the family has.
        defaults: what config.json may leave out, as transformers' class has it.
        skipped: beginnings of the names of tensors that are not the text model's.
        head_is_embedding: a head in the files is the embedding once more, and left out.
        layout: whose plugin knows what converters do to tensors: by default the family's own; "" for nothing at all.
    """

    architecture: str
    keys: Callable[[Hyperparameters, Any], Extra]
    activations: tuple[str, ...] = ("silu",)
    defaults: Mapping[str, Any] = field(factory=dict)
    skipped: tuple[str, ...] = ()
    head_is_embedding: bool = False
    layout: str | None = None


def _llama(config: Hyperparameters, keys: Any, *, head_dim: bool = True) -> Extra:
    _common(config, keys)
    if head_dim or config.find("head_dim") is not None:
        _head_dim(config, keys)
    keys.add_vocab_size(config.integer("vocab_size"))
    keys.add_rope_dimension_count(config.head_dim)
    return _llama3_rope(config)


def _mixtral(config: Hyperparameters, keys: Any) -> Extra:
    keys.add_expert_count(config.integer("num_local_experts"))
    keys.add_expert_used_count(config.integer("num_experts_per_tok"))
    if config.find("sliding_window") is not None:
        keys.add_sliding_window(config.integer("sliding_window"))
    return _llama(config, keys, head_dim=False)


def _ministral3(config: Hyperparameters, keys: Any) -> Extra:
    rope = config.rope
    if rope.get("rope_type") != "yarn":
        raise config.refuse("its rope scaling is not of the type 'yarn'")
    keys.add_rope_scaling_yarn_log_mul(float(rope.get("mscale_all_dim", 1.0)))
    keys.add_attn_temperature_scale(float(rope.get("llama_4_scaling_beta", 0.0)))
    return _mistral(config, keys)


def _granite(config: Hyperparameters, keys: Any) -> Extra:
    for name, add in (
        ("attention_multiplier", keys.add_attention_scale),
        ("embedding_multiplier", keys.add_embedding_scale),
        ("residual_multiplier", keys.add_residual_scale),
        ("logits_scaling", keys.add_logit_scale),
    ):
        if config.find(name):
            add(config.number(name))
    return _llama(config, keys, head_dim=False)


def _smollm3(config: Hyperparameters, keys: Any) -> Extra:
    n, given = config.n_layer, config.find("no_rope_layers")
    if given is not None and given != [int((i + 1) % SMOLLM3_STEP != 0) for i in range(n)]:
        raise config.refuse(f"no_rope_layers names others than every {SMOLLM3_STEP}th layer")
    return _llama(config, keys, head_dim=False)


def _mistral(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("sliding_window") is not None:
        keys.add_sliding_window(config.integer("sliding_window"))
    return _llama(config, keys)


def _qwen(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("use_sliding_window"):
        raise config.refuse("use_sliding_window is true, which GGUF has no key for in this family")
    _common(config, keys)
    if config.find("head_dim") is not None:
        _head_dim(config, keys)
    return {}


def _olmo2(config: Hyperparameters, keys: Any) -> Extra:
    _common(config, keys)
    return {}


def _qwen_moe(config: Hyperparameters, keys: Any, *, renormalised: bool) -> Extra:
    if config.find("mlp_only_layers") or config.find("decoder_sparse_step") not in (None, 1):
        raise config.refuse("some of its layers have no experts, which GGUF has no key for in this family")
    if bool(config.find("norm_topk_prob")) != renormalised:
        raise config.refuse(f"norm_topk_prob is not {renormalised}, which GGUF has no key for in this family")
    keys.add_expert_count(config.integer("num_experts", "num_local_experts"))
    keys.add_expert_used_count(config.integer("num_experts_per_tok"))
    keys.add_expert_feed_forward_length(config.integer("moe_intermediate_size"))
    if config.find("shared_expert_intermediate_size"):
        keys.add_expert_shared_feed_forward_length(config.integer("shared_expert_intermediate_size"))
    return _qwen(config, keys)


def _gemma(config: Hyperparameters, keys: Any) -> Extra:
    _sizes(config, keys)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    _head_dim(config, keys)
    _plain_rope(config, keys, written=False)
    keys.add_add_space_prefix(False)
    return {}


def _gemma2(config: Hyperparameters, keys: Any) -> Extra:
    for name, add in (
        ("attn_logit_softcapping", keys.add_attn_logit_softcapping),
        ("final_logit_softcapping", keys.add_final_logit_softcapping),
    ):
        if config.find(name) is not None:
            add(config.number(name))
    keys.add_sliding_window(config.integer("sliding_window"))
    return _gemma(config, keys)


def _gemma3(config: Hyperparameters, keys: Any) -> Extra:
    _common(config, keys)
    _head_dim(config, keys)
    if config.find("attn_logit_softcapping") is not None:
        raise config.refuse("attn_logit_softcapping is set, which this family does not have")
    if config.find("final_logit_softcapping"):
        keys.add_final_logit_softcapping(config.number("final_logit_softcapping"))
    if config.find("sliding_window_pattern", "_sliding_window_pattern") != 1:
        keys.add_sliding_window(config.integer("sliding_window"))
    keys.add_add_space_prefix(False)
    return {}


def _phi3(config: Hyperparameters, keys: Any) -> Extra:
    n_ctx, rope = config.integer("max_position_embeddings", "n_positions"), config.rope
    original = int(rope.get("original_max_position_embeddings", n_ctx))
    n_rot = int(rope.get("partial_rotary_factor", 1.0) * config.head_dim)
    _sizes(config, keys)
    keys.add_rope_scaling_orig_ctx_len(original)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    keys.add_rope_dimension_count(n_rot)
    keys.add_rope_freq_base(_theta(config))
    keys.add_sliding_window(config.find("sliding_window") or 0)
    long, short = rope.get("long_factor"), rope.get("short_factor")
    if not long:
        if rope.get("rope_type") not in (None, "default"):
            raise config.refuse(f"rope scaling of the type {str(rope['rope_type'])[:40]!r} has no key in this family")
        return {}
    if not (isinstance(long, list) and isinstance(short, list) and len(long) == len(short) == n_rot // 2):
        raise config.refuse(f"long_factor and short_factor are not {n_rot // 2} numbers each")
    scale = n_ctx / original
    attention = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    keys.add_rope_scaling_attn_factors(attention)
    return {
        "rope_factors_long.weight": np.array(long, np.float32),
        "rope_factors_short.weight": np.array(short, np.float32),
    }


def _phi2(config: Hyperparameters, keys: Any) -> Extra:
    n_embd, n_head = config.integer("hidden_size", "n_embd"), config.integer("num_attention_heads", "n_head")
    if config.find("qk_layernorm") or config.find("num_key_value_heads") not in (None, n_head):
        raise config.refuse("this Phi differs from Phi-2 in its attention")
    if config.find("intermediate_size", "n_inner") not in (None, 4 * n_embd):
        raise config.refuse("this Phi differs from Phi-2 in its feed-forward")
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer("n_positions", "max_position_embeddings"))
    keys.add_embedding_length(n_embd)
    keys.add_feed_forward_length(4 * n_embd)
    keys.add_head_count(n_head)
    keys.add_head_count_kv(n_head)
    keys.add_layer_norm_eps(config.number("layer_norm_eps", "layer_norm_epsilon"))
    keys.add_rope_dimension_count(int(config.rope.get("partial_rotary_factor", 0.5) * n_embd) // n_head)
    keys.add_add_bos_token(False)
    _plain_rope(config, keys, written=False)
    return {}


def _gpt2(config: Hyperparameters, keys: Any) -> Extra:
    n_embd = config.integer("n_embd", "hidden_size")
    n_ff = config.find("n_inner") or 4 * n_embd
    if n_ff != 4 * n_embd or config.find("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
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
    _plain_rope(config, keys, written=False)
    return {}


_VISION = ("vision_tower.", "vision_model.", "multi_modal_projector.", "model.vision_tower.",
           "model.multi_modal_projector.")  # fmt: skip
_GEMMA3_DEFAULTS = {
    "max_position_embeddings": 131072, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "sliding_window": 4096,
    "vocab_size": 262_208,
}  # fmt: skip
_GELU, _TANH = ("gelu",), ("gelu_pytorch_tanh", "gelu_new", "gelu")
_LLAMA_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0}

SMOLLM3_STEP = 4  # every fourth layer of SmolLM3 has no rotation

#: By the first of ``architectures`` in config.json.
FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama", _llama, defaults=_LLAMA_DEFAULTS),
    "MistralForCausalLM": Family("llama", _mistral, defaults=_LLAMA_DEFAULTS),
    "MixtralForCausalLM": Family("llama", _mixtral, defaults=_LLAMA_DEFAULTS),
    "Ministral3ForCausalLM": Family("mistral3", _ministral3, defaults=_LLAMA_DEFAULTS, layout="llama"),
    "GraniteForCausalLM": Family("granite", _granite, defaults=_LLAMA_DEFAULTS, layout="llama"),
    "SmolLM3ForCausalLM": Family("smollm3", _smollm3, defaults={**_LLAMA_DEFAULTS, "rope_theta": 2_000_000.0}),
    "ArceeForCausalLM": Family("arcee", _llama, ("relu2",), {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}),
    "Olmo2ForCausalLM": Family("olmo2", _olmo2, defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}, layout=""),
    "SeedOssForCausalLM": Family("seed_oss", _qwen, defaults=_LLAMA_DEFAULTS, layout=""),
    "Qwen2ForCausalLM": Family("qwen2", _qwen, defaults=_LLAMA_DEFAULTS),
    "Qwen3ForCausalLM": Family("qwen3", _qwen, defaults={**_LLAMA_DEFAULTS, "head_dim": 128}),
    "Qwen2MoeForCausalLM": Family("qwen2moe", partial(_qwen_moe, renormalised=False), defaults=_LLAMA_DEFAULTS),
    "Qwen3MoeForCausalLM": Family("qwen3moe", partial(_qwen_moe, renormalised=True), defaults=_LLAMA_DEFAULTS),
    "GemmaForCausalLM": Family("gemma", _gemma, _TANH, {**_LLAMA_DEFAULTS, "head_dim": 256}, head_is_embedding=True),
    "Gemma2ForCausalLM": Family("gemma2", _gemma2, _TANH, {**_LLAMA_DEFAULTS, "head_dim": 256}, head_is_embedding=True),
    "Gemma3ForCausalLM": Family("gemma3", _gemma3, _TANH, _GEMMA3_DEFAULTS),
    "Gemma3ForConditionalGeneration": Family("gemma3", _gemma3, _TANH, _GEMMA3_DEFAULTS, _VISION),
    "Phi3ForCausalLM": Family("phi3", _phi3, defaults={"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}),
    "PhiForCausalLM": Family("phi2", _phi2, ("gelu_new",), {"layer_norm_eps": 1e-5}, layout=""),
    "GPT2LMHeadModel": Family("gpt2", _gpt2, _TANH, {"layer_norm_epsilon": 1e-5}),
    "GPTNeoXForCausalLM": Family(
        "gptneox", _gptneox, _GELU, {"layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 10_000}
    ),
}


def family_of(architecture: str, where: str) -> Family:
    """The family of a class of transformers.

    Raises:
        SourceError: none that can be converted here.
    """
    found = FAMILIES.get(architecture)
    if found is None:
        raise SourceError(
            f"models of the class {architecture[:80]!r} cannot be converted here",
            where=where,
            fix="look for a GGUF file of this model, or convert it with llama.cpp's convert_hf_to_gguf.py",
        )
    return found


def check_activation(family: Family, config: Hyperparameters) -> None:
    """SourceError when the feed-forward has an activation that the family has not."""
    found = config.find("hidden_activation", "hidden_act", "activation_function")
    if found is not None and found not in family.activations:
        raise config.refuse(f"its activation is {str(found)[:40]!r}, and this family has {family.activations[0]!r}")


def _sizes(config: Hyperparameters, keys: Any) -> None:
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer("max_position_embeddings", "n_positions"))
    keys.add_embedding_length(config.integer("hidden_size"))
    keys.add_feed_forward_length(config.integer("intermediate_size"))
    keys.add_head_count(config.integer("num_attention_heads"))
    heads = "num_key_value_heads" if config.find("num_key_value_heads") is not None else "num_attention_heads"
    keys.add_head_count_kv(config.integer(heads))


def _common(config: Hyperparameters, keys: Any) -> None:
    """What the families of LLaMA's shape have alike."""
    _sizes(config, keys)
    _rope_scaling(config, keys)
    _plain_rope(config, keys, written=True)
    if config.rope_theta_window is not None:
        keys.add_rope_freq_base_swa(config.rope_theta_window)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))


def _head_dim(config: Hyperparameters, keys: Any) -> None:
    keys.add_key_length(config.head_dim)
    keys.add_value_length(config.head_dim)


def _theta(config: Hyperparameters) -> float:
    value = config.rope.get("rope_theta", 10_000.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise config.refuse(f"rope_theta is {str(value)[:40]!r}, not a number")
    return float(value)


def _plain_rope(config: Hyperparameters, keys: Any, *, written: bool) -> None:
    """The base of the rotation; where converters leave it out, only another than 10,000 is written."""
    theta = _theta(config)
    if written or theta != 10_000.0:
        keys.add_rope_freq_base(theta)


def _rope_scaling(config: Hyperparameters, keys: Any) -> None:
    from gguf import RopeScalingType

    rope = config.rope
    kind = rope.get("rope_type") or "default"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise config.refuse("partial_rotary_factor is set, which this family does not have")
    if kind in ("default", "llama3"):  # the latter is a tensor of its own
        return
    if kind not in ("linear", "yarn") or "factor" not in rope:
        raise config.refuse(f"rope scaling of the type {str(kind)[:40]!r} has no key in GGUF")
    keys.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
    keys.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        keys.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        for name, add in (
            ("extrapolation_factor", keys.add_rope_scaling_yarn_ext_factor),
            ("attention_factor", keys.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", keys.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", keys.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(name) is not None:
                add(rope[name])


def _llama3_rope(config: Hyperparameters) -> Extra:
    """Llama 3.1's divisors of the frequencies: 1 for short waves, ``factor`` for long ones, a slope between them."""
    rope = config.rope
    if rope.get("rope_type") != "llama3":
        return {}
    n_rot = config.head_dim
    frequencies = 1.0 / _theta(config) ** (np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)
    factor, low, high = rope.get("factor", 8.0), rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    original = rope.get("original_max_position_embeddings", 8192)
    waves = 2 * math.pi / frequencies
    smooth = (original / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(waves < original / high, 1.0, np.where(waves > original / low, factor, between))
    return {"rope_freqs.weight": factors.astype(np.float32)}
