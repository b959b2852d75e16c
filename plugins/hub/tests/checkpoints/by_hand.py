"""Checkpoints with the files that real models of their families have: split, with cards, vocabularies of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from checkpoints.files import (
    LLAMA_PIECES,
    N_EMBD,
    N_VOCAB,
    Weights,
    byte_level_tokenizer,
    write_config,
    write_pieces,
    write_safetensors,
    write_tokenizer,
)

N_LAYER, N_FF, N_HEAD, N_KV, HEAD = 2, 64, 4, 2, 8
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")  # fmt: skip
QWEN2 = LLAMA3.replace("{1,3}", "")
COMMON = {
    "hidden_size": N_EMBD, "num_hidden_layers": N_LAYER, "intermediate_size": N_FF, "num_attention_heads": N_HEAD,
    "num_key_value_heads": N_KV, "vocab_size": N_VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
}  # fmt: skip
GEMMA = {**COMMON, "head_dim": 16, "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh",
         "hidden_act": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
GEMMA_PIECES = [("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2), ("<mask>", 4), ("<start_of_turn>", 4)]
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")


def gated(weights: Weights, *, head: int = HEAD, bias: bool = False, head_norm: bool = False,
          norms: tuple[str, ...] = LLAMA_NORMS, tied: bool = False, n_layer: int = N_LAYER,
          n_kv: int = N_KV) -> None:  # fmt: skip
    """The layers of LLaMA's shape."""
    weights.add("model.embed_tokens.weight", N_VOCAB, N_EMBD)
    for i in range(n_layer):
        at = f"model.layers.{i}"
        for norm in norms:
            weights.norm(f"{at}.{norm}")
        weights.linear(f"{at}.self_attn.q_proj", N_HEAD * head, N_EMBD, bias=bias)
        weights.linear(f"{at}.self_attn.k_proj", n_kv * head, N_EMBD, bias=bias)
        weights.linear(f"{at}.self_attn.v_proj", n_kv * head, N_EMBD, bias=bias)
        weights.linear(f"{at}.self_attn.o_proj", N_EMBD, N_HEAD * head)
        if head_norm:
            for part in "qk":
                weights.tensors[f"{at}.self_attn.{part}_norm.weight"] = np.arange(head, dtype=np.float32) / 8
        weights.linear(f"{at}.mlp.gate_proj", N_FF, N_EMBD)
        weights.linear(f"{at}.mlp.up_proj", N_FF, N_EMBD)
        weights.linear(f"{at}.mlp.down_proj", N_EMBD, N_FF)
    weights.norm("model.norm")
    if not tied:
        weights.add("lm_head.weight", N_VOCAB, N_EMBD)


def phi3_weights(weights: Weights) -> None:
    weights.add("model.embed_tokens.weight", N_VOCAB, N_EMBD)
    for i in range(N_LAYER):
        at = f"model.layers.{i}"
        weights.norm(f"{at}.input_layernorm")
        weights.linear(f"{at}.self_attn.qkv_proj", (N_HEAD + 2 * N_KV) * HEAD, N_EMBD)
        weights.linear(f"{at}.self_attn.o_proj", N_EMBD, N_HEAD * HEAD)
        weights.norm(f"{at}.post_attention_layernorm")
        weights.linear(f"{at}.mlp.gate_up_proj", 2 * N_FF, N_EMBD)
        weights.linear(f"{at}.mlp.down_proj", N_EMBD, N_FF)
    weights.norm("model.norm")
    weights.add("lm_head.weight", N_VOCAB, N_EMBD)


def gpt2_weights(weights: Weights) -> None:
    """As openai-community/gpt2 has them: without a prefix, with causal masks, and matrices by columns."""
    weights.add("wte.weight", N_VOCAB, N_EMBD)
    weights.add("wpe.weight", 64, N_EMBD)
    for i in range(N_LAYER):
        weights.norm(f"h.{i}.ln_1", bias=True)
        weights.tensors[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 64, 64), np.float32))
        for part, n_in, n_out in (("attn.c_attn", N_EMBD, 3 * N_EMBD), ("attn.c_proj", N_EMBD, N_EMBD),
                                  ("mlp.c_fc", N_EMBD, 4 * N_EMBD), ("mlp.c_proj", 4 * N_EMBD, N_EMBD)):  # fmt: skip
            weights.add(f"h.{i}.{part}.weight", n_in, n_out)
            weights.add(f"h.{i}.{part}.bias", n_out)
        weights.norm(f"h.{i}.ln_2", bias=True)
    weights.norm("ln_f", bias=True)


def gptneox_weights(weights: Weights) -> None:
    """As EleutherAI/pythia-160m has them, with masks and frequencies."""
    weights.add("gpt_neox.embed_in.weight", N_VOCAB, N_EMBD)
    for i in range(N_LAYER):
        at = f"gpt_neox.layers.{i}"
        weights.norm(f"{at}.input_layernorm", bias=True)
        weights.norm(f"{at}.post_attention_layernorm", bias=True)
        weights.tensors[f"{at}.attention.bias"] = np.tril(np.ones((1, 1, 16, 16), bool))
        weights.tensors[f"{at}.attention.masked_bias"] = np.array(-1e4, np.float32)
        weights.tensors[f"{at}.attention.rotary_emb.inv_freq"] = np.ones(1, np.float32)
        weights.linear(f"{at}.attention.query_key_value", 3 * N_EMBD, N_EMBD, bias=True)
        weights.linear(f"{at}.attention.dense", N_EMBD, N_EMBD, bias=True)
        weights.linear(f"{at}.mlp.dense_h_to_4h", N_FF, N_EMBD, bias=True)
        weights.linear(f"{at}.mlp.dense_4h_to_h", N_EMBD, N_FF, bias=True)
    weights.norm("gpt_neox.final_layer_norm", bias=True)
    weights.add("embed_out.weight", N_VOCAB, N_EMBD)


def llama(folder: Path) -> None:
    """TinyLlama's kind: SentencePiece, in two files with an index, a card with a licence."""
    write_config(folder, "LlamaForCausalLM", "llama", **COMMON, hidden_act="silu", rope_theta=10000.0,
                 tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, torch_dtype="float32")  # fmt: skip
    write_pieces(folder, LLAMA_PIECES, {"<unk>": (0, True), "<s>": (1, True), "</s>": (2, True)},
                 bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True,
                 chat_template=CHAT)  # fmt: skip
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Tiny\n")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.9}))
    weights = Weights(1)
    gated(weights)
    names = list(weights.tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        write_safetensors(folder / file, {name: weights.tensors[name] for name in part})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def llama3(folder: Path) -> None:
    """Llama 3.2's kind: byte-level BPE, scaled rotation, tied head, BF16."""
    scaling = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
               "original_max_position_embeddings": 64}  # fmt: skip
    write_config(folder, "LlamaForCausalLM", "llama", **{**COMMON, "head_dim": HEAD}, hidden_act="silu",
                 rope_theta=500000.0, rope_scaling=scaling, tie_word_embeddings=True, bos_token_id=263,
                 eos_token_id=[264, 265], torch_dtype="bfloat16")  # fmt: skip
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = byte_level_tokenizer(LLAMA3, special, ignore_merges=True)
    start = {"SpecialToken": {"id": special[0], "type_id": 0}}
    text, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    template = {"type": "TemplateProcessing", "single": [start, text], "pair": [start, text, start, second],
                "special_tokens": {special[0]: {"id": special[0], "ids": [263], "tokens": [special[0]]}}}  # fmt: skip
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [tokenizer["post_processor"], template]}
    write_tokenizer(folder, tokenizer, bos_token=special[0], eos_token=special[2], chat_template=CHAT)
    weights = Weights(2)
    gated(weights, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def mixtral(folder: Path) -> None:
    """Mixtral's kind: four experts, of which two work, under the names of its first files."""
    write_config(folder, "MixtralForCausalLM", "mixtral", **{**COMMON, "intermediate_size": N_FF // 2},
                 hidden_act="silu", rope_theta=1000000.0, num_local_experts=4, num_experts_per_tok=2,
                 sliding_window=None, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)  # fmt: skip
    write_pieces(folder, LLAMA_PIECES, {"<unk>": (0, True), "<s>": (1, True), "</s>": (2, True)},
                 bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True)  # fmt: skip
    weights = Weights(16)
    gated(weights)
    experts(weights, shared=False)
    parts = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    renamed = {}
    for name, values in weights.tensors.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        found = f"{stem}.{parts[part]}.weight" if part in parts else name
        renamed[found.replace(".mlp.", ".block_sparse_moe.")] = values
    write_safetensors(folder / "model.safetensors", renamed, "BF16")


def smollm3(folder: Path) -> None:
    """SmolLM3's kind: every fourth layer without rotation."""
    config = {**COMMON, "num_hidden_layers": 4}
    write_config(folder, "SmolLM3ForCausalLM", "smollm3", **config, hidden_act="silu", rope_theta=2000000.0,
                 no_rope_layers=[1, 1, 1, 0], no_rope_layer_interval=4, tie_word_embeddings=True, bos_token_id=263,
                 eos_token_id=264, use_sliding_window=False)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(LLAMA3, ["<|begin_of_text|>", "<|im_end|>"]), eos_token="<|im_end|>")
    weights = Weights(14)
    gated(weights, n_layer=4, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def arcee(folder: Path) -> None:
    """AFM's kind: squared ReLU without a gate."""
    write_config(folder, "ArceeForCausalLM", "arcee", **{**COMMON, "head_dim": HEAD}, hidden_act="relu2",
                 rope_theta=10000.0, mlp_bias=False, tie_word_embeddings=False, bos_token_id=263,
                 eos_token_id=264)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(LLAMA3, ["<|begin_of_text|>", "<|im_end|>"], ignore_merges=True),
                    eos_token="<|im_end|>")  # fmt: skip
    weights = Weights(15)
    gated(weights)
    for i in range(N_LAYER):
        del weights.tensors[f"model.layers.{i}.mlp.gate_proj.weight"]
    write_safetensors(folder / "model.safetensors", weights.tensors)


def mistral3(folder: Path) -> None:
    """Ministral 3's kind: stretched positions, and queries that grow with them."""
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1}  # fmt: skip
    write_config(folder, "Ministral3ForCausalLM", "ministral3", **{**COMMON, "head_dim": HEAD}, hidden_act="silu",
                 rope_parameters=rope, sliding_window=None, tie_word_embeddings=False, bos_token_id=263,
                 eos_token_id=264)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(LLAMA3, ["<s>", "</s>"], ignore_merges=True), eos_token="</s>")
    weights = Weights(17)
    gated(weights)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def granite(folder: Path) -> None:
    """Granite 3's kind: numbers that multiply embeddings, attention, what is added, and logits."""
    write_config(folder, "GraniteForCausalLM", "granite", **COMMON, hidden_act="silu", rope_theta=10000.0,
                 attention_multiplier=0.25, embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0,
                 attention_bias=False, mlp_bias=False, tie_word_embeddings=True, bos_token_id=263,
                 eos_token_id=263)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(None, ["<|end_of_text|>"]), eos_token="<|end_of_text|>")
    weights = Weights(18)
    gated(weights, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "F16")


def olmo2(folder: Path) -> None:
    """OLMo 2's kind: norms after the branches, and over all of a query or key."""
    write_config(folder, "Olmo2ForCausalLM", "olmo2", **{**COMMON, "num_key_value_heads": N_HEAD}, hidden_act="silu",
                 rope_theta=500000.0, attention_bias=False, tie_word_embeddings=False, bos_token_id=None,
                 eos_token_id=263, pad_token_id=263)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(LLAMA3, ["<|endoftext|>"]), eos_token="<|endoftext|>")
    weights = Weights(20)
    gated(weights, n_kv=N_HEAD, norms=("post_attention_layernorm", "post_feedforward_layernorm"))
    for i in range(N_LAYER):
        for part in "qk":
            weights.norm(f"model.layers.{i}.self_attn.{part}_norm")
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def seed_oss(folder: Path) -> None:
    """Seed-OSS's kind: biases, and a head of its own size."""
    write_config(folder, "SeedOssForCausalLM", "seed_oss", **{**COMMON, "head_dim": 16}, hidden_act="silu",
                 rope_theta=10000000.0, attention_bias=True, attention_out_bias=False, mlp_bias=False,
                 tie_word_embeddings=False, bos_token_id=263, eos_token_id=264)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(QWEN2, ["<seed:bos>", "<seed:eos>"]), eos_token="<seed:eos>")
    weights = Weights(21)
    gated(weights, head=16, bias=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def phi2(folder: Path) -> None:
    write_config(folder, "PhiForCausalLM", "phi", **{**COMMON, "num_key_value_heads": N_HEAD,
                 "intermediate_size": 4 * N_EMBD}, hidden_act="gelu_new", layer_norm_eps=1e-5, rope_theta=10000.0,
                 partial_rotary_factor=0.5, tie_word_embeddings=False, qk_layernorm=False, bos_token_id=263,
                 eos_token_id=263)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(None, ["<|endoftext|>"]), eos_token="<|endoftext|>")
    weights = Weights(19)
    weights.add("model.embed_tokens.weight", N_VOCAB, N_EMBD)
    for i in range(N_LAYER):
        at = f"model.layers.{i}"
        weights.norm(f"{at}.input_layernorm", bias=True)
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            weights.linear(f"{at}.self_attn.{part}", N_EMBD, N_EMBD, bias=True)
        weights.linear(f"{at}.mlp.fc1", 4 * N_EMBD, N_EMBD, bias=True)
        weights.linear(f"{at}.mlp.fc2", N_EMBD, 4 * N_EMBD, bias=True)
    weights.norm("model.final_layernorm", bias=True)
    weights.linear("lm_head", N_VOCAB, N_EMBD, bias=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "F16")


def qwen2(folder: Path) -> None:
    """Qwen2.5's kind: biases, tied, F16."""
    write_config(folder, "Qwen2ForCausalLM", "qwen2", **{**COMMON, "rms_norm_eps": 1e-6}, hidden_act="silu",
                 rope_theta=1000000.0, use_sliding_window=False, sliding_window=256, max_window_layers=2,
                 tie_word_embeddings=True, bos_token_id=263, eos_token_id=265, torch_dtype="float16")  # fmt: skip
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]
    write_tokenizer(folder, byte_level_tokenizer(QWEN2, special), add_bos_token=False, bos_token=None,
                    eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT)  # fmt: skip
    weights = Weights(3)
    gated(weights, bias=True, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "F16")


def qwen3(folder: Path) -> None:
    """Qwen3's kind: a head of its own size, normalised queries and keys."""
    write_config(folder, "Qwen3ForCausalLM", "qwen3", **{**COMMON, "head_dim": 16}, hidden_act="silu",
                 rope_theta=1000000.0, tie_word_embeddings=False, bos_token_id=263, eos_token_id=265)  # fmt: skip
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    write_tokenizer(folder, byte_level_tokenizer(QWEN2, special), add_bos_token=False, eos_token="<|im_end|>",
                    pad_token="<|endoftext|>")  # fmt: skip
    (folder / "chat_template.jinja").write_text(CHAT)
    weights = Weights(4)
    gated(weights, head=16, head_norm=True)
    write_safetensors(folder / "model.safetensors", weights.tensors)


def experts(weights: Weights, *, shared: bool) -> None:
    """Experts in the place of each layer's feed-forward, one matrix each."""
    for i in range(N_LAYER):
        at = f"model.layers.{i}.mlp"
        for part in ("gate_proj", "up_proj", "down_proj"):
            del weights.tensors[f"{at}.{part}.weight"]
        weights.linear(f"{at}.gate", 4, N_EMBD)
        for name in [f"experts.{e}" for e in range(4)] + ["shared_expert"] * shared:
            weights.linear(f"{at}.{name}.gate_proj", N_FF // 2, N_EMBD)
            weights.linear(f"{at}.{name}.up_proj", N_FF // 2, N_EMBD)
            weights.linear(f"{at}.{name}.down_proj", N_EMBD, N_FF // 2)
        if shared:
            weights.linear(f"{at}.shared_expert_gate", 1, N_EMBD)


def qwen2moe(folder: Path) -> None:
    """Qwen1.5-MoE's kind: four experts, of which two work, and one that always does."""
    write_config(folder, "Qwen2MoeForCausalLM", "qwen2_moe", **COMMON, hidden_act="silu", rope_theta=1000000.0,
                 decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=False, num_experts=4, num_experts_per_tok=2,
                 moe_intermediate_size=32, shared_expert_intermediate_size=32, tie_word_embeddings=False,
                 use_sliding_window=False, bos_token_id=263, eos_token_id=263)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(QWEN2, ["<|endoftext|>", "<|im_end|>"]), eos_token="<|endoftext|>")
    weights = Weights(12)
    gated(weights, bias=True)
    experts(weights, shared=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def qwen3moe(folder: Path) -> None:
    """Qwen3-30B-A3B's kind."""
    write_config(folder, "Qwen3MoeForCausalLM", "qwen3_moe", **{**COMMON, "head_dim": 16}, hidden_act="silu",
                 rope_theta=1000000.0, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, num_experts=4,
                 num_experts_per_tok=2, moe_intermediate_size=32, tie_word_embeddings=False, bos_token_id=263,
                 eos_token_id=264)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(QWEN2, ["<|endoftext|>", "<|im_end|>"]), eos_token="<|im_end|>")
    weights = Weights(13)
    gated(weights, head=16, head_norm=True)
    experts(weights, shared=False)
    write_safetensors(folder / "model.safetensors", weights.tensors)


def gemma_tokenizer(folder: Path) -> None:
    write_pieces(folder, GEMMA_PIECES, {"<pad>": (0, True), "<eos>": (1, True), "<bos>": (2, True),
                                        "<unk>": (3, True), "<mask>": (4, False), "<start_of_turn>": (5, False)},
                 bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
                 add_bos_token=True, add_eos_token=False)  # fmt: skip


def gemma(folder: Path) -> None:
    write_config(folder, "GemmaForCausalLM", "gemma", **GEMMA, rope_theta=10000.0)
    gemma_tokenizer(folder)
    weights = Weights(5)
    gated(weights, head=16, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors)


GEMMA2_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                "post_feedforward_layernorm")  # fmt: skip


def gemma2(folder: Path) -> None:
    write_config(folder, "Gemma2ForCausalLM", "gemma2", **GEMMA, rope_theta=10000.0, sliding_window=64,
                 attn_logit_softcapping=50.0, final_logit_softcapping=30.0, query_pre_attn_scalar=16)  # fmt: skip
    gemma_tokenizer(folder)
    weights = Weights(6)
    gated(weights, head=16, norms=GEMMA2_NORMS, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def gemma3(folder: Path) -> None:
    write_config(folder, "Gemma3ForCausalLM", "gemma3_text", **GEMMA, rope_theta=1000000.0,
                 rope_local_base_freq=10000.0, sliding_window=64, sliding_window_pattern=6, query_pre_attn_scalar=16,
                 attn_logit_softcapping=None, final_logit_softcapping=None, rope_scaling=None)  # fmt: skip
    gemma_tokenizer(folder)
    weights = Weights(7)
    gated(weights, head=16, norms=GEMMA2_NORMS, head_norm=True, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def phi3(folder: Path) -> None:
    """Phi-3's kind with long factors."""
    scaling = {"type": "longrope", "short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 8.0]}
    write_config(folder, "Phi3ForCausalLM", "phi3", **COMMON, hidden_act="silu", rope_theta=10000.0,
                 rope_scaling=scaling, original_max_position_embeddings=64, sliding_window=128, bos_token_id=1,
                 eos_token_id=2, pad_token_id=2, tie_word_embeddings=False)  # fmt: skip
    write_pieces(folder, LLAMA_PIECES, {"<unk>": (0, True), "<s>": (1, True), "</s>": (2, False),
                                        "<|end|>": (276, True), "<|user|>": (277, True)},
                 bos_token="<s>", eos_token="</s>", unk_token="<unk>")  # fmt: skip
    weights = Weights(8)
    phi3_weights(weights)
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


def gpt2(folder: Path) -> None:
    write_config(folder, "GPT2LMHeadModel", "gpt2", n_embd=N_EMBD, n_layer=N_LAYER, n_head=N_HEAD, n_ctx=64,
                 n_positions=64, layer_norm_epsilon=1e-5, activation_function="gelu_new", vocab_size=N_VOCAB,
                 bos_token_id=263, eos_token_id=263)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(None, ["<|endoftext|>"]), bos_token="<|endoftext|>",
                    eos_token="<|endoftext|>", unk_token="<|endoftext|>")  # fmt: skip
    weights = Weights(9)
    gpt2_weights(weights)
    write_safetensors(folder / "model.safetensors", weights.tensors)


def gptneox(folder: Path) -> None:
    write_config(folder, "GPTNeoXForCausalLM", "gpt_neox", hidden_size=N_EMBD, num_hidden_layers=N_LAYER,
                 num_attention_heads=N_HEAD, intermediate_size=N_FF, max_position_embeddings=256, rotary_pct=0.25,
                 rotary_emb_base=10000, layer_norm_eps=1e-5, use_parallel_residual=True, vocab_size=N_VOCAB,
                 hidden_act="gelu", bos_token_id=263, eos_token_id=263, tie_word_embeddings=False)  # fmt: skip
    write_tokenizer(folder, byte_level_tokenizer(None, ["<|endoftext|>", "<|padding|>"]), bos_token="<|endoftext|>",
                    eos_token="<|endoftext|>", unk_token="<|endoftext|>")  # fmt: skip
    weights = Weights(10)
    gptneox_weights(weights)
    write_safetensors(folder / "model.safetensors", weights.tensors, "F16")


def llama_json(folder: Path) -> None:
    """LLaMA's vocabulary as a tokenizer.json alone: pieces without scores, but merges."""
    write_config(folder, "LlamaForCausalLM", "llama", **COMMON, hidden_act="silu", rope_theta=10000.0,
                 tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)  # fmt: skip
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": b + 3 for b in range(256)}
    merges = [["▁", "t"], ["h", "e"], ["▁t", "he"], ["i", "n"], ["▁", "a"], ["e", "r"], ["o", "n"], ["o", "the"]]
    for piece in ["▁", *"thinaeors", *(left + right for left, right in merges[:-1])]:
        vocab.setdefault(piece, len(vocab))
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    added = [{"id": i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for i, text in enumerate(["<unk>", "<s>", "</s>"])]  # fmt: skip
    tokenizer = {
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "ignore_merges": False, "vocab": vocab, "merges": merges[:-1]},
    }  # fmt: skip
    write_tokenizer(folder, tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True)
    weights = Weights(11)
    gated(weights, tied=True)
    write_safetensors(folder / "model.safetensors", weights.tensors)


BY_HAND = {function.__name__: function for function in (
    llama, llama3, llama_json, mixtral, smollm3, arcee, mistral3, granite, olmo2, seed_oss, qwen2, qwen3, qwen2moe,
    qwen3moe, gemma, gemma2, gemma3, phi2, phi3, gpt2, gptneox,
)}  # fmt: skip
