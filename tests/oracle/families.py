"""The tiny model of each family, as transformers configures it.

A family is one record: transformers' `model_type`, what its configuration says beyond `COMMON`, and the
`tokenizer.ggml.pre` that its real files name. Windows, original contexts and limits are so small that 88 tokens reach
past all of them. Name it after GGUF's `general.architecture`, and after a dash what sets this model apart from another
of the same architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

N_VOCAB = 260
BOS, EOS = 257, 258

COMMON: dict[str, Any] = {
    "vocab_size": N_VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
EXPERTS: dict[str, Any] = {"num_hidden_layers": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def rope(theta: float = 10000.0, **scaling: Any) -> dict[str, Any]:
    """transformers' `rope_parameters`."""
    return {"rope_type": "default", "rope_theta": theta} | scaling


YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
DEEP = {"num_hidden_layers": 64, "hidden_size": 32, "intermediate_size": 32}
POSITION_SCALE = {"llama_4_scaling_beta": 0.1}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [],
}
"""What a family whose transformers model also sees is given for eyes; the converter leaves it out."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to make the tiny model of a family."""

    name: str
    model_type: str
    """transformers' name of the configuration class."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What differs from `COMMON`."""
    pre: str = "gpt-2"
    """`tokenizer.ggml.pre` of the family's files."""
    gelu: bool = False
    """llama.cpp looks GELU up in a table of float16, and agrees to 1e-3."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Factors on the spread of parameters whose names contain the key."""
    settled_with: Mapping[str, Any] = field(default_factory=dict)
    """Further changes for a second model, beside which llama.cpp is held where it computes something else with the
    first (a number in its code, say); the first model's only oracle is then transformers."""
    converter_options: tuple[str, ...] = ()
    alibi: bool = False
    """ALiBi takes the place of rotations; see `alibi.put_alibi`."""
    architecture: str | None = None
    """`architectures[0]` of `config.json`, where the converter knows the model by another name than transformers."""
    note: str = ""
    """What to know about the oracles of this family."""


# --- The table -------------------------------------------------------------------------------------------------------

_LLAMA = (
    Family(name="llama", model_type="llama", pre="llama-bpe", config={"rope_parameters": rope(500000.0)}),
    Family(
        name="llama-experts",
        model_type="mixtral",
        config={"num_hidden_layers": 2, "intermediate_size": 32, "num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    Family(
        name="mistral3",
        model_type="ministral3",
        pre="tekken",
        config={"head_dim": 32, "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0} | POSITION_SCALE},
    ),
    Family(
        name="llama4",
        model_type="llama4_text",
        pre="llama4",
        config={
            "num_hidden_layers": 4,
            "intermediate_size": 16,
            "intermediate_size_mlp": 96,
            "interleave_moe_layer_step": 2,
            "num_local_experts": 16,
            "num_experts_per_tok": 1,
            "head_dim": 16,
            "pad_token_id": None,
            "rope_parameters": rope(500000.0),
        },
        note="chunks (8,192) and temperature start far past 88 tokens; llama.cpp has the numbers in its code, "
        "and takes q and k for normed where there are 16 experts",
    ),
    Family(name="smollm3", model_type="smollm3", pre="smaug-bpe", config={"num_hidden_layers": 4}),
    Family(name="arcee", model_type="arcee", pre="llama-bpe", config={"head_dim": 16, "rope_parameters": YARN}),
    Family(
        name="internlm2",
        model_type="llama",
        architecture="InternLM2ForCausalLM",
        note="transformers' LLaMA under InternLM 2's names of tensors",
    ),
    Family(
        name="baichuan",
        model_type="llama",
        config={"num_key_value_heads": 4},
        architecture="BaichuanForCausalLM",
        settled_with=DEEP | {"num_hidden_layers": 32},
        note="transformers' LLaMA under Baichuan's names of tensors (the 7B); llama.cpp rotates if there are 32 layers",
    ),
    Family(
        name="baichuan-alibi",
        model_type="llama",
        config={"num_hidden_layers": 40, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3}
        | {"intermediate_size": 16},
        architecture="BaichuanForCausalLM",
        alibi=True,
        note="the 13B: LLaMA with ALiBi put in place of rotations; llama.cpp has it where there are 40 layers",
    ),
)

_QWEN = (
    Family(name="qwen3", model_type="qwen3", pre="qwen2", config={"head_dim": 32, "rope_parameters": rope(1e6)}),
    Family(
        name="qwen2moe",
        model_type="qwen2_moe",
        pre="qwen2",
        config=EXPERTS | {"num_experts": 8, "shared_expert_intermediate_size": 64, "norm_topk_prob": False},
    ),
    Family(
        name="qwen3moe",
        model_type="qwen3_moe",
        pre="qwen2",
        config=EXPERTS | {"head_dim": 32, "num_experts": 8, "norm_topk_prob": True, "rope_parameters": rope(1e6)},
        note="llama.cpp always renormalises the chosen experts' weights, so norm_topk_prob is true",
    ),
    Family(
        name="qwen3vl",
        model_type="qwen3_vl",
        pre="qwen2",
        config={
            "text_config": COMMON
            | {"head_dim": 16, "rope_parameters": rope(1e6, mrope_section=[3, 3, 2], mrope_interleaved=True)},
            "vision_config": VISION,
            "tie_word_embeddings": False,
        },
        note="text alone: all three positions of M-RoPE are the same",
    ),
)

_GRANITE_SCALES = {
    "embedding_multiplier": 6.0,
    "logits_scaling": 0.5,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.125,
}
_GRANITE = (
    Family(name="granite", model_type="granite", pre="refact", config=_GRANITE_SCALES),
    Family(
        name="granitemoe",
        model_type="granitemoe",
        pre="refact",
        config=_GRANITE_SCALES
        | {"num_hidden_layers": 2, "intermediate_size": 32, "num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    Family(
        name="granitemoe-shared",
        model_type="granitemoeshared",
        pre="refact",
        config=_GRANITE_SCALES
        | {"num_hidden_layers": 2, "intermediate_size": 32, "num_local_experts": 8, "num_experts_per_tok": 2}
        | {"shared_intermediate_size": 64},
    ),
)

_OLMO = (
    Family(name="olmo2", model_type="olmo2", pre="dbrx"),
    Family(
        name="olmo2-windows",
        model_type="olmo3",
        pre="dbrx",
        config={
            "num_hidden_layers": 4,
            "sliding_window": 6,
            "layer_types": [*["sliding_attention"] * 3, "full_attention"],
            "rope_parameters": {"sliding_attention": rope(500000.0), "full_attention": YARN | {"rope_theta": 500000.0}},
        },
        note="OLMo 3, whose architecture is olmo2 in GGUF",
    ),
    Family(
        name="olmoe",
        model_type="olmoe",
        pre="olmo",
        config={"num_hidden_layers": 2, "intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2}
        | {"num_key_value_heads": 4},
    ),
)

_GLM = (
    Family(
        name="glm4",
        model_type="glm4",
        pre="glm4",
        config={"head_dim": 16, "attention_bias": True, "rope_parameters": rope(partial_rotary_factor=0.5)},
    ),
    Family(
        name="glm4moe",
        model_type="glm4_moe",
        pre="glm4",
        config=EXPERTS
        | {
            "num_hidden_layers": 3,
            "head_dim": 32,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "routed_scaling_factor": 1.5,
            "use_qk_norm": True,
            "attention_bias": True,
            "num_nextn_predict_layers": 0,
            "rope_parameters": rope(1e6, partial_rotary_factor=0.5),
        },
    ),
)

_COHERE = (
    Family(
        name="command-r",
        model_type="cohere",
        pre="command-r",
        config={"logit_scale": 0.25, "tie_word_embeddings": True, "rope_parameters": rope(75000.0)},
    ),
    Family(
        name="command-r-norms",
        model_type="cohere",
        pre="command-r",
        config={"logit_scale": 0.25, "tie_word_embeddings": True, "use_qk_norm": True},
        settled_with=DEEP,
        note="Command R+; llama.cpp takes q and k for normed where there are 64 layers or more",
    ),
    Family(
        name="cohere2",
        model_type="cohere2",
        pre="command-r",
        config={
            "num_hidden_layers": 4,
            "head_dim": 16,
            "logit_scale": 0.25,
            "tie_word_embeddings": True,
            "sliding_window": 6,
            "rotary_pct": 1.0,
            "rope_parameters": rope(50000.0),
        },
    ),
)

_FIRST = (
    Family(
        name="gpt2",
        model_type="gpt2",
        gelu=True,
        config={"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 256} | {"n_positions": 256, "n_ctx": 256},
    ),
    Family(name="qwen2", model_type="qwen2", pre="qwen2", config={"tie_word_embeddings": True}),
    Family(
        name="gemma2",
        model_type="gemma2",
        gelu=True,
        config={"num_hidden_layers": 4, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
        | {"tie_word_embeddings": True, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    Family(
        name="gemma3",
        model_type="gemma3_text",
        gelu=True,
        config={
            "num_hidden_layers": 6,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "sliding_attention": rope(10000.0),
                "full_attention": rope(1e6, rope_type="linear", factor=8.0),
            },
        },
    ),
)

_STABLELM = {"rope_parameters": rope(partial_rotary_factor=0.25), "layer_norm_eps": 1e-5}
_OTHERS = (
    Family(
        name="gpt-oss",
        model_type="gpt_oss",
        pre="gpt-4o",
        config={
            "num_hidden_layers": 4,
            "intermediate_size": 32,
            "head_dim": 32,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": 6,
            "rope_parameters": YARN | {"rope_theta": 150000.0, "truncate": False},
        },
        gains={"sinks": 8.0, "experts": 2.0},
        settled_with={"rope_parameters": YARN | {"rope_theta": 150000.0, "truncate": True}},
        note="the bounds of its YaRN are not rounded to whole dimensions, as OpenAI has it; llama.cpp rounds them",
    ),
    Family(
        name="exaone4",
        model_type="exaone4",
        pre="exaone4",
        config={"sliding_window": None, "layer_types": ["full_attention"] * 3, "rope_parameters": rope(1e6)},
        note="the 1.2B: no windows, and rotations in every layer",
    ),
    Family(
        name="exaone4-windows",
        model_type="exaone4",
        pre="exaone4",
        config={"num_hidden_layers": 4, "sliding_window": 6, "sliding_window_pattern": 4},
        settled_with=DEEP | {"layer_types": ([*["sliding_attention"] * 3, "full_attention"] * 16)},
        note="the 32B: llama.cpp has windows, and no rotations in the other layers, only where there are 64 layers",
    ),
    Family(name="ernie4_5", model_type="ernie4_5", config={"head_dim": 32, "tie_word_embeddings": True}),
    Family(
        name="ernie4_5-moe",
        model_type="ernie4_5_moe",
        config={
            "intermediate_size": 128,
            "moe_intermediate_size": 32,
            "moe_num_experts": 8,
            "moe_k": 2,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
            "moe_layer_interval": 1,
        },
        note="the converter takes the shared experts' width for intermediate_size / num_key_value_heads",
    ),
    Family(
        name="hunyuan-dense",
        model_type="hunyuan_v1_dense",
        pre="hunyuan-dense",
        config={
            "head_dim": 32,
            "eod_token_id": EOS,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0},
        },
    ),
    Family(
        name="seed_oss",
        model_type="seed_oss",
        pre="seed-coder",
        config={"head_dim": 32, "attention_bias": True, "attention_dropout": 0.0, "residual_dropout": 0.0},
    ),
    Family(
        name="starcoder2",
        gelu=True,
        model_type="starcoder2",
        pre="starcoder",
        config={"use_bias": True, "tie_word_embeddings": True, "rope_parameters": rope(999999.0)},
        note="no window, which llama.cpp does not have for this family",
    ),
    Family(name="stablelm", model_type="stablelm", config=_STABLELM | {"use_qkv_bias": True}, note="the 1.6B"),
    Family(
        name="stablelm-parallel",
        model_type="stablelm",
        config=_STABLELM | {"qk_layernorm": True, "use_parallel_residual": True},
        note="the 12B",
    ),
    Family(
        name="phi2",
        gelu=True,
        model_type="phi",
        config={
            "num_key_value_heads": 4,
            "intermediate_size": 256,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
    ),
    Family(
        name="phimoe",
        model_type="phimoe",
        config={
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "lm_head_bias": True,
            "max_position_embeddings": 256,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 128,
                "short_factor": [1.0, 1.1, 1.2, 1.4, 1.8, 2.0, 2.5, 3.0],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0],
                "short_mscale": 1.0690449676496976,
                "long_mscale": 1.0690449676496976,
            },
        },
        architecture="PhiMoEForCausalLM",
        note="they disagree: transformers centres in its norms (LayerNorm) and routes by SparseMixer, as Microsoft's "
        "model does; llama.cpp has RMSNorm and the softmax of the best two",
    ),
    Family(
        name="falcon",
        gelu=True,
        model_type="falcon",
        pre="falcon",
        config={"ffn_hidden_size": 256, "multi_query": True, "parallel_attn": True, "num_kv_heads": 1}
        | {"tie_word_embeddings": True},
        note="the 7B",
    ),
    Family(
        name="falcon-groups",
        gelu=True,
        model_type="falcon",
        pre="falcon",
        config={"ffn_hidden_size": 256, "new_decoder_architecture": True, "num_kv_heads": 2},
        note="the 40B",
    ),
    Family(
        name="bloom",
        gelu=True,
        model_type="bloom",
        pre="bloom",
        config={"n_layer": 3, "n_head": 4, "tie_word_embeddings": True},
    ),
    Family(
        name="mpt",
        gelu=True,
        model_type="mpt",
        pre="mpt",
        config={"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 256, "tie_word_embeddings": True}
        | {"attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": 2.0}},
        architecture="MPTForCausalLM",
    ),
)

_DELTA_NET = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": [*["linear_attention"] * 3, "full_attention"],
    "rope_parameters": rope(1e6, partial_rotary_factor=0.25),
}
_STATES = (
    Family(
        name="qwen35",
        model_type="qwen3_5_text",
        pre="qwen35",
        config=_DELTA_NET,
        converter_options=("--no-mtp",),
    ),
    Family(
        name="qwen35moe",
        model_type="qwen3_5_moe_text",
        pre="qwen35",
        config=_DELTA_NET
        | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 32, "num_experts": 8}
        | {"num_experts_per_tok": 2},
        converter_options=("--no-mtp",),
    ),
    Family(
        name="lfm2",
        model_type="lfm2",
        pre="lfm2",
        config={
            "layer_types": ["conv", "full_attention", "conv"],
            "block_auto_adjust_ff_dim": False,
            "rope_parameters": rope(1e6),
        },
    ),
    Family(
        name="lfm2moe",
        model_type="lfm2_moe",
        pre="lfm2",
        config={
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
            "moe_intermediate_size": 32,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "num_dense_layers": 1,
            "use_expert_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": rope(1e6),
        },
    ),
)

FAMILIES: dict[str, Family] = {
    family.name: family for family in (*_FIRST, *_LLAMA, *_QWEN, *_GRANITE, *_OLMO, *_GLM, *_COHERE, *_OTHERS, *_STATES)
}
