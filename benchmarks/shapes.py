"""The shapes of real models, as data: what `random_model.py` needs to write a GGUF file that looks like the real one.

Every number comes from the model's published `config.json`. `tiny` names the fields that differ in the scaled-down
version of a shape: the same architecture, small enough that a test writes the file and runs it in a second, with
windows, soft-caps and rope scaling shrunk so that a score of tokens reaches past all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Vocab:
    """A synthetic vocabulary of the right kind; special tokens are named by their text."""

    model: Literal["gpt2", "llama"]
    """`tokenizer.ggml.model`: byte-level BPE or SentencePiece."""
    pre: str = "default"
    first: tuple[str, ...] = ()
    """Control tokens that take the first ids."""
    last: tuple[str, ...] = ()
    """Control tokens that follow the ordinary ones."""
    unused: int = 0
    """Trailing ids that stand for nothing: embedding rows padded to a round number."""
    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    pad: str | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1's rope scaling; a GGUF file holds only the divisors computed from it, as `rope_freqs.weight`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """A stretched context, of which a GGUF file holds these."""

    factor: float
    original_context: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One model: every dimension, in GGUF's words."""

    name: str
    arch: str
    """`general.architecture`."""
    n_ctx: int
    n_vocab: int
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    norm_eps: float
    tied: bool
    """The head is the embedding: the file has no `output.weight`."""
    vocab: Vocab
    head_dim_key: bool = False
    """The published config names `head_dim`, so converters write `attention.key_length` and `value_length`."""
    rope_theta: float | None = None
    rope_theta_local: float | None = None
    """The base of the layers with a window, where it differs."""
    rope_dims: int | None = None
    """Written only by converters that write it."""
    rope_scaling: Llama3Rope | YarnRope | None = None
    window: int | None = None
    attn_softcap: float | None = None
    final_softcap: float | None = None
    n_expert: int = 0
    """0: one feed-forward for all rows."""
    n_expert_used: int = 0
    n_ff_expert: int = 0
    tiny: Mapping[str, Any] = field(default_factory=dict)

    def scaled_down(self) -> Shape:
        """The tiny version, under the same name."""
        return replace(self, **self.tiny)

    def with_layers(self, n_layer: int) -> Shape:
        return replace(self, n_layer=n_layer)

    def cut(self, n_layer: int) -> Shape:
        """That many layers, and as much less of the vocabulary: the head keeps its share of a step."""
        rounded = 64 * round(self.n_vocab * n_layer / self.n_layer / 64)
        return replace(self.with_layers(n_layer), n_vocab=rounded, vocab=replace(self.vocab, unused=0))


def _llama3_specials(n: int) -> tuple[str, ...]:
    named = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        4: "<|finetune_right_pad_id|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|eom_id|>",
        9: "<|eot_id|>",
        10: "<|python_tag|>",
    }
    return tuple(named.get(i, f"<|reserved_special_token_{i}|>") for i in range(n))


GPT2_VOCAB = Vocab(model="gpt2", pre="gpt-2", last=("<|endoftext|>",), bos="<|endoftext|>", eos="<|endoftext|>")
LLAMA_VOCAB = Vocab(
    model="llama",
    first=("<unk>", "<s>", "</s>"),
    bos="<s>",
    eos="</s>",
    unk="<unk>",
    pad="</s>",
    add_bos=True,
    add_eos=False,
)
LLAMA3_VOCAB = Vocab(
    model="gpt2", pre="llama-bpe", last=_llama3_specials(256), bos="<|begin_of_text|>", eos="<|end_of_text|>"
)
QWEN_VOCAB = Vocab(
    model="gpt2",
    pre="qwen2",
    last=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    unused=151936 - 151646,
    bos="<|endoftext|>",
    eos="<|im_end|>",
    pad="<|endoftext|>",
    add_bos=False,
)
SMOLLM_VOCAB = Vocab(
    model="gpt2",
    pre="smollm",
    first=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    bos="<|endoftext|>",
    eos="<|endoftext|>",
    unk="<|endoftext|>",
    add_bos=False,
)
NEOX_VOCAB = Vocab(
    model="gpt2",
    pre="olmo",
    first=("<|endoftext|>", "<|padding|>"),
    unused=50304 - 50277,
    bos="<|endoftext|>",
    eos="<|endoftext|>",
    unk="<|endoftext|>",
)
GEMMA_VOCAB = Vocab(
    model="llama",
    first=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    bos="<bos>",
    eos="<eos>",
    unk="<unk>",
    pad="<pad>",
    add_bos=True,
    add_eos=False,
    add_space_prefix=False,
)
PHI3_VOCAB = Vocab(
    model="llama",
    first=("<unk>", "<s>", "</s>"),
    last=("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
    unused=64 - 5,
    bos="<s>",
    eos="<|endoftext|>",
    unk="<unk>",
    pad="<|endoftext|>",
    add_bos=True,
    add_eos=False,
)

GPT_OSS_VOCAB = Vocab(
    model="gpt2",
    pre="gpt-4o",
    last=("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>",
          "<|call|>"),
    unused=201088 - 200006,
    bos="<|startoftext|>",
    eos="<|return|>",
    pad="<|endoftext|>",
    add_bos=False,
)  # fmt: skip

GPT2 = Shape(
    name="gpt2",
    arch="gpt2",
    n_ctx=1024,
    n_vocab=50257,
    n_layer=12,
    n_embd=768,
    n_head=12,
    n_head_kv=12,
    head_dim=64,
    n_ff=3072,
    norm_eps=1e-5,
    tied=True,
    vocab=GPT2_VOCAB,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_head_kv": 4, "head_dim": 16,
          "n_ff": 256},
)  # fmt: skip

TINYLLAMA = Shape(
    name="tinyllama-1.1b",
    arch="llama",
    n_ctx=2048,
    n_vocab=32000,
    n_layer=22,
    n_embd=2048,
    n_head=32,
    n_head_kv=4,
    head_dim=64,
    n_ff=5632,
    norm_eps=1e-5,
    tied=False,
    vocab=LLAMA_VOCAB,
    rope_theta=10_000.0,
    rope_dims=64,
    tiny={"n_ctx": 256, "n_vocab": 384, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 16,
          "n_ff": 160, "rope_dims": 16},
)  # fmt: skip

LLAMA_32_1B = Shape(
    name="llama-3.2-1b",
    arch="llama",
    n_ctx=131072,
    n_vocab=128256,
    n_layer=16,
    n_embd=2048,
    n_head=32,
    n_head_kv=8,
    head_dim=64,
    n_ff=8192,
    norm_eps=1e-5,
    tied=True,
    head_dim_key=True,
    vocab=LLAMA3_VOCAB,
    rope_theta=500_000.0,
    rope_dims=64,
    rope_scaling=Llama3Rope(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192),
    tiny={"n_ctx": 1024, "n_vocab": 320, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 16,
          "n_ff": 160, "rope_dims": 16, "vocab": replace(LLAMA3_VOCAB, last=_llama3_specials(16)),
          "rope_theta": 100.0,
          "rope_scaling": Llama3Rope(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)},
)  # fmt: skip

QWEN25_05B = Shape(
    name="qwen2.5-0.5b",
    arch="qwen2",
    n_ctx=32768,
    n_vocab=151936,
    n_layer=24,
    n_embd=896,
    n_head=14,
    n_head_kv=2,
    head_dim=64,
    n_ff=4864,
    norm_eps=1e-6,
    tied=True,
    vocab=QWEN_VOCAB,
    rope_theta=1_000_000.0,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 3, "n_embd": 96, "n_head": 6, "n_head_kv": 2, "head_dim": 16,
          "n_ff": 160, "vocab": replace(QWEN_VOCAB, unused=5)},
)  # fmt: skip

QWEN3_06B = Shape(
    name="qwen3-0.6b",
    arch="qwen3",
    n_ctx=40960,
    n_vocab=151936,
    n_layer=28,
    n_embd=1024,
    n_head=16,
    n_head_kv=8,
    head_dim=128,
    n_ff=3072,
    norm_eps=1e-6,
    tied=True,
    head_dim_key=True,
    vocab=QWEN_VOCAB,
    rope_theta=1_000_000.0,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 32,
          "n_ff": 160, "vocab": replace(QWEN_VOCAB, unused=5)},
)  # fmt: skip

SMOLLM_135M = Shape(
    name="smollm-135m",
    arch="llama",
    n_ctx=2048,
    n_vocab=49152,
    n_layer=30,
    n_embd=576,
    n_head=9,
    n_head_kv=3,
    head_dim=64,
    n_ff=1536,
    norm_eps=1e-5,
    tied=True,
    vocab=SMOLLM_VOCAB,
    rope_theta=10_000.0,
    rope_dims=64,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 4, "n_embd": 96, "n_head": 3, "n_head_kv": 1, "head_dim": 32,
          "n_ff": 256, "rope_dims": 32},
)  # fmt: skip

PYTHIA_160M = Shape(
    name="pythia-160m",
    arch="gptneox",
    n_ctx=2048,
    n_vocab=50304,
    n_layer=12,
    n_embd=768,
    n_head=12,
    n_head_kv=12,
    head_dim=64,
    n_ff=3072,
    norm_eps=1e-5,
    tied=False,
    vocab=NEOX_VOCAB,
    rope_theta=10_000.0,
    rope_dims=16,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 3, "n_embd": 64, "n_head": 4, "n_head_kv": 4, "head_dim": 16,
          "n_ff": 256, "rope_dims": 4, "vocab": replace(NEOX_VOCAB, unused=5)},
)  # fmt: skip

GEMMA_2_2B = Shape(
    name="gemma-2-2b",
    arch="gemma2",
    n_ctx=8192,
    n_vocab=256000,
    n_layer=26,
    n_embd=2304,
    n_head=8,
    n_head_kv=4,
    head_dim=256,
    n_ff=9216,
    norm_eps=1e-6,
    tied=True,
    head_dim_key=True,
    vocab=GEMMA_VOCAB,
    rope_theta=10_000.0,
    window=4096,
    attn_softcap=50.0,
    final_softcap=30.0,
    tiny={"n_ctx": 256, "n_vocab": 384, "n_layer": 4, "n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 32,
          "n_ff": 160, "window": 6, "attn_softcap": 2.0, "final_softcap": 8.0},
)  # fmt: skip

GEMMA_3_1B = Shape(
    name="gemma-3-1b",
    arch="gemma3",
    n_ctx=32768,
    n_vocab=262144,
    n_layer=26,
    n_embd=1152,
    n_head=4,
    n_head_kv=1,
    head_dim=256,
    n_ff=6912,
    norm_eps=1e-6,
    tied=True,
    head_dim_key=True,
    vocab=GEMMA_VOCAB,
    rope_theta=1_000_000.0,
    rope_theta_local=10_000.0,
    window=512,
    tiny={"n_ctx": 256, "n_vocab": 384, "n_layer": 7, "n_embd": 64, "n_head": 4, "n_head_kv": 1, "head_dim": 32,
          "n_ff": 160, "window": 5},
)  # fmt: skip

PHI_3_MINI = Shape(
    name="phi-3-mini",
    arch="phi3",
    n_ctx=4096,
    n_vocab=32064,
    n_layer=32,
    n_embd=3072,
    n_head=32,
    n_head_kv=32,
    head_dim=96,
    n_ff=8192,
    norm_eps=1e-5,
    tied=False,
    vocab=PHI3_VOCAB,
    rope_theta=10_000.0,
    rope_dims=96,
    window=2047,
    tiny={"n_ctx": 256, "n_vocab": 384, "n_layer": 3, "n_embd": 96, "n_head": 4, "n_head_kv": 4, "head_dim": 24,
          "n_ff": 160, "rope_dims": 24, "vocab": replace(PHI3_VOCAB, unused=5)},
)  # fmt: skip

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        GPT2, TINYLLAMA, LLAMA_32_1B, QWEN25_05B, QWEN3_06B, SMOLLM_135M, PYTHIA_160M, GEMMA_2_2B, GEMMA_3_1B,
        PHI_3_MINI,
    )
}  # fmt: skip

QWEN3_30B_A3B = replace(
    QWEN3_06B,
    name="qwen3-30b-a3b",
    arch="qwen3moe",
    n_layer=48,
    n_embd=2048,
    n_head=32,
    n_head_kv=4,
    n_ff=6144,
    tied=False,
    n_expert=128,
    n_expert_used=8,
    n_ff_expert=768,
    tiny={**QWEN3_06B.tiny, "n_expert": 8, "n_expert_used": 3, "n_ff_expert": 64},
)

GPT_OSS_20B = Shape(
    name="gpt-oss-20b",
    arch="gpt-oss",
    n_ctx=131072,
    n_vocab=201088,
    n_layer=24,
    n_embd=2880,
    n_head=64,
    n_head_kv=8,
    head_dim=64,
    head_dim_key=True,
    n_ff=2880,
    norm_eps=1e-5,
    tied=False,
    vocab=GPT_OSS_VOCAB,
    rope_theta=150_000.0,
    rope_scaling=YarnRope(factor=32.0, original_context=4096),
    window=128,
    n_expert=32,
    n_expert_used=4,
    n_ff_expert=2880,
    tiny={"n_ctx": 256, "n_vocab": 320, "n_layer": 2, "n_embd": 64, "n_head": 4, "n_head_kv": 2, "head_dim": 16,
          "n_ff": 64, "n_ff_expert": 64, "n_expert": 8, "window": 6, "vocab": replace(GPT_OSS_VOCAB, unused=5),
          "rope_scaling": YarnRope(factor=4.0, original_context=64)},
)  # fmt: skip

MEASURED = {shape.name: shape for shape in (QWEN3_30B_A3B, GPT_OSS_20B)}
"""Shapes that are only measured: their goldens are among those of `tests/oracle`."""
