"""Write a GGUF file with random weights and the exact shape of a real model.

    python benchmarks/random_model.py tinyllama-1.1b out.gguf --type Q4_0
    python benchmarks/random_model.py gemma-3-1b out.gguf --tiny --seed 0

Metadata keys, tensor names, tensor shapes and fused parts are those that llama.cpp's `convert_hf_to_gguf.py` writes for
the architecture; names come from the `gguf` package. The same shape, options and seed give the same weights on every
machine: they are made from PCG64's raw integers (whose stream numpy guarantees) by integer sums and one
multiplication, without a library call that may round differently elsewhere.

Scales are chosen so that an error anywhere shows in the logits: attention scores spread by more than one, norms are
not all one, biases are not zero. Tensors in types that the `gguf` package cannot encode, or not within a minute, and
stacks of experts are random blocks with about the mean and spread of the weights that they stand for.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import MODEL_TENSOR as T
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from shapes import MEASURED, SHAPES, Llama3Rope, Shape, Vocab, YarnRope

GEMMAS = ("gemma2", "gemma3")
CHUNK = 1 << 22  # weights made at a time

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "MXFP4": LlamaFileType.MOSTLY_MXFP4_MOE,
    "Q2_K": LlamaFileType.MOSTLY_Q2_K,
    "Q3_K": LlamaFileType.MOSTLY_Q3_K_S,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_S,
    "Q5_K": LlamaFileType.MOSTLY_Q5_K_S,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "IQ4_NL": LlamaFileType.MOSTLY_IQ4_NL,
    "IQ4_XS": LlamaFileType.MOSTLY_IQ4_XS,
    "NVFP4": LlamaFileType.MOSTLY_NVFP4,
    "TQ1_0": LlamaFileType.MOSTLY_TQ1_0,
    "TQ2_0": LlamaFileType.MOSTLY_TQ2_0,
}
PLAIN_TYPES = ("F32", "F16", "BF16", "Q8_0")  # what the converter itself writes; the rest comes from `llama-quantize`


# --- Tensors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """A tensor to write: its rows are the outputs, its columns the inputs (GGUF lists the dimensions in reverse)."""

    key: T
    name: str
    layer: int | None
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0


def tensors(shape: Shape) -> Iterator[Tensor]:
    """Every random tensor of the file, in order (`rope_freqs.weight` is not random: see `rope_factors`)."""
    arch, n_embd, n_ff = shape.arch, shape.n_embd, shape.n_ff
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    layer_norm = arch in ("gpt2", "gptneox")
    residual = 2.0 / math.sqrt(2 * shape.n_layer)  # as in GPT-2: the residual stream keeps its size in deep models

    def norm(key: T, layer: int | None = None, size: int = n_embd, mean: float = 1.0) -> Iterator[Tensor]:
        name = gguf.TENSOR_NAMES[key].format(bid=layer)
        yield Tensor(key, f"{name}.weight", layer, (size,), 0.1, mean)
        if layer_norm:
            yield Tensor(key, f"{name}.bias", layer, (size,), 0.1)

    def linear(key: T, layer: int, rows: int, columns: int, gain: float = 1.0, bias: bool = False) -> Iterator[Tensor]:
        name = gguf.TENSOR_NAMES[key].format(bid=layer)
        yield Tensor(key, f"{name}.weight", layer, (rows, columns), gain / math.sqrt(columns))
        if bias or layer_norm:
            yield Tensor(key, f"{name}.bias", layer, (rows,), 0.1)

    def table(key: T, rows: int, gain: float) -> Tensor:
        return Tensor(key, f"{gguf.TENSOR_NAMES[key]}.weight", None, (rows, n_embd), gain / math.sqrt(n_embd))

    def attention(i: int) -> Iterator[Tensor]:
        if arch in ("gpt2", "gptneox", "phi3"):
            yield from linear(T.ATTN_QKV, i, n_q + 2 * n_kv, n_embd, gain=1.3)
        else:
            bias = arch in ("qwen2", "gpt-oss")
            yield from linear(T.ATTN_Q, i, n_q, n_embd, gain=1.3, bias=bias)
            yield from linear(T.ATTN_K, i, n_kv, n_embd, gain=1.3, bias=bias)
            yield from linear(T.ATTN_V, i, n_kv, n_embd, bias=bias)
        if arch in ("qwen3", "qwen3moe", "gemma3"):
            yield from norm(T.ATTN_Q_NORM, i, shape.head_dim, mean=1.2)
            yield from norm(T.ATTN_K_NORM, i, shape.head_dim, mean=1.2)
        yield from linear(T.ATTN_OUT, i, n_embd, n_q, gain=residual, bias=arch == "gpt-oss")
        if arch == "gpt-oss":
            yield from norm(T.ATTN_SINKS, i, shape.n_head)

    def experts(i: int) -> Iterator[Tensor]:
        bias = arch == "gpt-oss"
        yield from linear(T.FFN_GATE_INP, i, shape.n_expert, n_embd, bias=bias)
        for key, n_out, n_in, gain in (
            (T.FFN_GATE_EXP, shape.n_ff_expert, n_embd, 1.0),
            (T.FFN_UP_EXP, shape.n_ff_expert, n_embd, 1.0),
            (T.FFN_DOWN_EXP, n_embd, shape.n_ff_expert, residual),
        ):
            name = gguf.TENSOR_NAMES[key].format(bid=i)
            yield Tensor(key, f"{name}.weight", i, (shape.n_expert, n_out, n_in), gain / math.sqrt(n_in))
            if bias:
                yield Tensor(key, f"{name}.bias", i, (shape.n_expert, n_out), 0.1)

    def feed_forward(i: int) -> Iterator[Tensor]:
        if arch == "phi3":  # gate and up are one tensor, under the name of up
            yield from linear(T.FFN_UP, i, 2 * n_ff, n_embd)
        elif layer_norm:  # no gate
            yield from linear(T.FFN_UP, i, n_ff, n_embd)
        else:
            yield from linear(T.FFN_GATE, i, n_ff, n_embd)
            yield from linear(T.FFN_UP, i, n_ff, n_embd)
        yield from linear(T.FFN_DOWN, i, n_embd, n_ff, gain=residual)

    yield table(T.TOKEN_EMBD, shape.n_vocab, 2.0)
    if arch == "gpt2":
        yield table(T.POS_EMBD, shape.n_ctx, 1.0)
    for i in range(shape.n_layer):
        yield from norm(T.ATTN_NORM, i)
        yield from attention(i)
        if arch in GEMMAS:
            yield from norm(T.ATTN_POST_NORM, i)
            yield from norm(T.FFN_PRE_NORM, i)
        elif arch == "gpt-oss":
            yield from norm(T.ATTN_POST_NORM, i)
        else:
            yield from norm(T.FFN_NORM, i)
        yield from experts(i) if shape.n_expert else feed_forward(i)
        if arch in GEMMAS:
            yield from norm(T.FFN_POST_NORM, i)
    yield from norm(T.OUTPUT_NORM)
    if not shape.tied:
        yield table(T.OUTPUT, shape.n_vocab, 2.0)


def rope_factors(shape: Shape) -> npt.NDArray[np.float32]:
    """What each rotation frequency is divided by: Llama 3.1's rule, as the converter computes it.

    Source: `LlamaModel.generate_extra_tensors` in llama.cpp's `conversion/llama.py`.
    """
    scaling, theta, dims = shape.rope_scaling, shape.rope_theta, shape.head_dim
    assert isinstance(scaling, Llama3Rope)
    assert theta is not None
    factors = []
    for i in range(0, dims, 2):
        turns = scaling.original_context * theta ** (-i / dims) / (2 * math.pi)  # over the original context
        if turns > scaling.high_freq_factor:
            factors.append(1.0)
        elif turns < scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array(factors, dtype=np.float32)


# --- Weights ---------------------------------------------------------------------------------------------------------


def _bits(name: str, seed: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))


def _bytes(bits: np.random.PCG64, n: int) -> npt.NDArray[np.uint8]:
    raw: npt.NDArray[np.uint64] = bits.random_raw(-(-n // 8)).astype("<u8")
    return raw.view(np.uint8)[:n]


def _normal(bits: np.random.PCG64, n: int, std: float, mean: float) -> npt.NDArray[np.float32]:
    """About normal: the sum of four uniform 16-bit integers, centred and scaled."""
    sums = bits.random_raw(n).astype("<u8").view("<u2").reshape(n, 4).sum(axis=1, dtype=np.int32)
    values: npt.NDArray[np.float32] = (sums - 2 * 0xFFFF).astype(np.float32)
    values *= np.float32(std / math.sqrt((2**32 - 1) / 3))  # four times the variance (65536² − 1) / 12
    values += np.float32(mean)
    return values


def _steps(bits: np.random.PCG64, n: int, step: float) -> npt.NDArray[np.float16]:
    """(n, 1) block scales around `step`."""
    factors = 0.75 + (_bytes(bits, n) & 127).astype(np.float64) / 256
    return (step * factors.reshape(n, 1)).astype("<f2")


def _pack_scales(scales: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(n, 8) six-bit scales, used as minima too, to the 12 bytes of Q4_K and Q5_K (`get_scale_min_k4` in ggml)."""
    low, high = scales[:, :4], scales[:, 4:]
    top = low | ((high >> 4) << 6)
    return np.concatenate([top, top, (high & 0xF) | ((high & 0xF) << 4)], axis=1)


def _min_blocks(bits: np.random.PCG64, n: int, std: float, quant_bytes: int, levels: int) -> npt.NDArray[np.uint8]:
    """Q4_K (16 levels) or Q5_K (32): d · scale · q − dmin · min with min = scale and dmin the middle of q's range."""
    scales = _bytes(bits, 8 * n).reshape(n, 8) & np.uint8(31) | np.uint8(32)
    spread = 48.4 * math.sqrt((levels**2 - 1) / 12)  # root mean square of the scales, times that of q
    d = _steps(bits, n, std / spread)
    dmin = (d.astype(np.float32) * ((levels - 1) / 2)).astype("<f2")
    quants = _bytes(bits, quant_bytes * n).reshape(n, quant_bytes)
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), _pack_scales(scales), quants], axis=1)


def _q6_k(bits: np.random.PCG64, n: int, std: float) -> npt.NDArray[np.uint8]:
    """Q6_K: d · scale · (q − 32), the scales of both signs so that the mean is zero."""
    quants = _bytes(bits, 192 * n).reshape(n, 192)
    random = _bytes(bits, 16 * n).reshape(n, 16)
    scales = (64 + (random & 63)).astype(np.int8)
    scales[random >= 128] *= -1
    d = _steps(bits, n, std / (97.2 * math.sqrt((64**2 - 1) / 12)))
    return np.concatenate([quants, scales.view(np.uint8), d.view(np.uint8)], axis=1)


def _mxfp4(bits: np.random.PCG64, n: int, std: float) -> npt.NDArray[np.uint8]:
    """MXFP4: 2^(e - 127) times one of ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}, with e at two neighbours."""
    root = math.sqrt(68.5 / 8) * math.sqrt(2.5)  # of the mean square of these, and of 1 and 2, as often as each other
    least = 127 + round(math.log2(std / root))
    e = (least + (_bytes(bits, n) & 1)).astype(np.uint8).reshape(n, 1)
    return np.concatenate([e, _bytes(bits, 16 * n).reshape(n, 16)], axis=1)


def _q4_0(bits: np.random.PCG64, n: int, std: float) -> npt.NDArray[np.uint8]:
    """Q4_0: d · (q − 8), with d of both signs so that the mean is zero."""
    d = _steps(bits, n, std / math.sqrt((16**2 - 1) / 12 + 0.25))
    d *= np.where(_bytes(bits, n).reshape(n, 1) & 1, np.float16(1), np.float16(-1))
    return np.concatenate([d.view(np.uint8), _bytes(bits, 16 * n).reshape(n, 16)], axis=1)


def _nvfp4(bits: np.random.PCG64, n: int, std: float) -> npt.NDArray[np.uint8]:
    """NVFP4: MXFP4's numbers times one of four scales, here of 512ths at two neighbours (UE4M3 below 2^-6)."""
    scales = np.clip(round(std / 2.9 * 512), 1, 6) + (_bytes(bits, 4 * n) & 1)
    return np.concatenate([scales.astype(np.uint8).reshape(n, 4), _bytes(bits, 32 * n).reshape(n, 32)], axis=1)


def _around(bits: np.random.PCG64, n: int, name: str, step: float, at: int) -> npt.NDArray[np.uint8]:
    """Random codes and lower scales, with a block scale around `step` at byte `at`."""
    size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    blocks = _bytes(bits, size * n).reshape(n, size).copy()
    blocks[:, at : at + 2] = _steps(bits, n, step).view(np.uint8)
    return blocks


def _q2_k(bits: np.random.PCG64, n: int, std: float) -> npt.NDArray[np.uint8]:
    """Q2_K: d · scale · q − dmin · min, all of them random, with dmin so that the mean is zero."""
    blocks = _around(bits, n, "Q2_K", std / 13.9, 80)
    d = blocks[:, 80:82].copy().view("<f2").astype(np.float32)
    blocks[:, 82:84] = (1.5 * d).astype("<f2").view(np.uint8)
    return blocks


#: Types that the gguf package cannot encode, or not within a minute: blocks are made as they are stored.
_RANDOM_BLOCKS: dict[GGMLQuantizationType, Callable[[np.random.PCG64, int, float], npt.NDArray[np.uint8]]] = {
    GGMLQuantizationType.Q4_K: lambda bits, n, std: _min_blocks(bits, n, std, 128, 16),
    GGMLQuantizationType.Q5_K: lambda bits, n, std: _min_blocks(bits, n, std, 160, 32),
    GGMLQuantizationType.Q6_K: _q6_k,
    GGMLQuantizationType.MXFP4: _mxfp4,
    GGMLQuantizationType.NVFP4: _nvfp4,
    GGMLQuantizationType.Q2_K: _q2_k,
    # what the block scale is divided by is the root mean square of all that it is multiplied by
    GGMLQuantizationType.Q3_K: lambda bits, n, std: _around(bits, n, "Q3_K", std / 43.3, 108),
    GGMLQuantizationType.IQ4_NL: lambda bits, n, std: _around(bits, n, "IQ4_NL", std / 68, 0),
    GGMLQuantizationType.IQ4_XS: lambda bits, n, std: _around(bits, n, "IQ4_XS", std / 1250, 0),
}
#: And for stacks of experts, which have billions of values.
_RANDOM_STACKS = {**_RANDOM_BLOCKS, GGMLQuantizationType.Q4_0: _q4_0}


def tensor_data(tensor: Tensor, qtype: GGMLQuantizationType, seed: int) -> npt.NDArray[np.generic]:
    """The bytes of a tensor: float32 or float16 in its own shape, any other type as (rows, bytes in a row)."""
    columns, rows = tensor.shape[-1], math.prod(tensor.shape[:-1])
    bits = _bits(tensor.name, seed)
    out: npt.NDArray[np.generic]
    if qtype in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        out = np.empty((rows, columns), dtype=np.float32 if qtype == GGMLQuantizationType.F32 else np.float16)
    else:
        out = np.empty((rows, gguf.quant_shape_to_byte_shape((columns,), qtype)[0]), dtype=np.uint8)
    step = max(1, CHUNK // columns)
    random_blocks = _RANDOM_STACKS if len(tensor.shape) == 3 else _RANDOM_BLOCKS
    for start in range(0, rows, step):
        part = out[start : start + step]
        if qtype in random_blocks:
            n_blocks = len(part) * columns // gguf.GGML_QUANT_SIZES[qtype][0]
            part[:] = random_blocks[qtype](bits, n_blocks, tensor.std).reshape(part.shape)
            continue
        values = _normal(bits, len(part) * columns, tensor.std, tensor.mean).reshape(-1, columns)
        part[:] = values.astype(out.dtype) if out.dtype.kind == "f" else gguf.quants.quantize(values, qtype)
    return out.reshape(*tensor.shape[:-1], -1)


def tensor_type(tensor: Tensor, file_type: str, shape: Shape, *, pure: bool = False) -> GGMLQuantizationType:
    """The type that a tensor has in a file of this type; in a pure one, every matrix has the same.

    Source: `ModelBase.prepare_tensors` in llama.cpp's `conversion/base.py`, `llama_tensor_get_type` in
    `llama-quant.cpp`. `llama-quantize` stores the head as Q6_K, a few layers of a mix in a finer type, and rows that
    a K-quant's 256 does not divide in a type with blocks of 32.
    """
    if len(tensor.shape) == 1 or tensor.name.endswith(".bias") or tensor.key in (T.POS_EMBD, T.FFN_GATE_INP):
        return GGMLQuantizationType.F32
    if file_type == "MXFP4" and not pure:  # of experts alone
        return GGMLQuantizationType.MXFP4 if len(tensor.shape) == 3 else GGMLQuantizationType.Q8_0
    if pure or file_type in PLAIN_TYPES:
        return GGMLQuantizationType[file_type]
    name = file_type.removesuffix("_M")
    i, n = tensor.layer or 0, shape.n_layer
    if tensor.key == (T.TOKEN_EMBD if shape.tied else T.OUTPUT):
        name = "Q6_K"
    elif file_type == "Q4_K_M":
        finer = i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2
        if tensor.key in (T.ATTN_V, T.FFN_DOWN, T.FFN_DOWN_EXP) and finer:
            name = "Q6_K"
        elif tensor.key == T.ATTN_QKV:
            name = "Q5_K"
    if name.endswith("_K") and tensor.shape[-1] % 256:
        name = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}[name]
    return GGMLQuantizationType[name]


# --- Metadata --------------------------------------------------------------------------------------------------------


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The keys that the converter's class for this architecture writes (`set_gguf_parameters`)."""
    arch = shape.arch
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    if arch in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(shape.norm_eps)
    else:
        writer.add_head_count_kv(shape.n_head_kv)
        writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.head_dim_key:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    if shape.rope_dims is not None:
        writer.add_rope_dimension_count(shape.rope_dims)
    if shape.rope_theta is not None and arch not in ("gptneox", "gemma2"):  # these two leave the default, 10,000
        writer.add_rope_freq_base(shape.rope_theta)
    if shape.rope_theta_local is not None:
        writer.add_float32(f"{arch}.rope.freq_base_swa", shape.rope_theta_local)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)
    if shape.attn_softcap is not None:
        writer.add_attn_logit_softcapping(shape.attn_softcap)
    if shape.final_softcap is not None:
        writer.add_final_logit_softcapping(shape.final_softcap)
    if shape.n_expert:
        writer.add_expert_count(shape.n_expert)
        writer.add_expert_used_count(shape.n_expert_used)
        writer.add_expert_feed_forward_length(shape.n_ff_expert)
    if arch == "llama":
        writer.add_vocab_size(shape.n_vocab)
    if arch == "gptneox":
        writer.add_parallel_residual(True)
    if arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(shape.n_ctx)
    if isinstance(shape.rope_scaling, YarnRope):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(shape.rope_scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(shape.rope_scaling.original_context)


def byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE, in the order of GPT-2's vocabulary (its `encoder.py`)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def words(space: str) -> Iterator[tuple[str, str]]:
    """All words over the lower-case letters, shortest first, each as (word without its last letter, last letter)."""
    for length in count(2):
        for head in (space, *ascii_lowercase):
            for tail in product(ascii_lowercase, repeat=length - 1):
                yield head + "".join(tail[:-1]), tail[-1]


def add_vocabulary(writer: gguf.GGUFWriter, vocab: Vocab, n_vocab: int) -> None:
    """A vocabulary in which any text can be written: special tokens, all bytes, then words built by merging."""
    special = [(text, 0.0, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL) for text in vocab.first]
    n_words = n_vocab - len(vocab.first) - 256 - len(vocab.last) - vocab.unused
    entries: list[tuple[str, float, TokenType]]
    if vocab.model == "gpt2":
        pairs = list(islice(words("Ġ"), n_words))
        entries = [(letter, 0.0, TokenType.NORMAL) for letter in byte_letters()]
        entries += [(left + right, 0.0, TokenType.NORMAL) for left, right in pairs]
    else:
        letters = ["▁", *map(chr, range(ord("!"), ord("~") + 1))]
        pairs = list(islice(words("▁"), n_words - len(letters)))
        entries = [(f"<0x{byte:02X}>", 0.0, TokenType.BYTE) for byte in range(256)]
        entries += [(left + right, -float(i), TokenType.NORMAL) for i, (left, right) in enumerate(pairs)]
        entries += [(letter, -float(len(pairs) + i), TokenType.NORMAL) for i, letter in enumerate(letters)]
    entries = special + entries + [(text, 0.0, TokenType.CONTROL) for text in vocab.last]
    entries += [(f"[PAD{i}]", -10000.0, TokenType.UNUSED) for i in range(len(entries), n_vocab)]
    ids = {text: i for i, (text, _, _) in enumerate(entries)}
    if not (len(entries) == len(ids) == n_vocab):
        raise ValueError(
            f"a vocabulary of {n_vocab} came out with {len(entries)} entries, {len(ids)} of them different"
        )

    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list([text for text, _, _ in entries])
    if vocab.model == "llama":
        writer.add_token_scores([score for _, score, _ in entries])
    writer.add_token_types([kind for _, _, kind in entries])
    if vocab.model == "gpt2":
        writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    for text, add in (
        (vocab.bos, writer.add_bos_token_id),
        (vocab.eos, writer.add_eos_token_id),
        (vocab.unk, writer.add_unk_token_id),
        (vocab.pad, writer.add_pad_token_id),
    ):
        if text is not None:
            add(ids[text])
    if vocab.add_bos is not None:
        writer.add_add_bos_token(vocab.add_bos)
    if vocab.add_eos is not None:
        writer.add_add_eos_token(vocab.add_eos)
    if vocab.add_space_prefix is not None:
        writer.add_add_space_prefix(vocab.add_space_prefix)


# --- The file --------------------------------------------------------------------------------------------------------


def write_model(shape: Shape, path: Path | str, *, file_type: str = "F32", seed: int = 0, pure: bool = False) -> str:
    """Write the file, tensor by tensor, and return the SHA-256 of its tensors' names and bytes (in file order).

    A golden stores that digest: a test that finds another one has other weights, not a wrong result.
    """
    plan = [(tensor, tensor_type(tensor, file_type, shape, pure=pure)) for tensor in tensors(shape)]
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"{shape.name} (random weights)")
    writer.add_size_label(gguf.size_label(sum(math.prod(t.shape) for t, _ in plan), 0, 0, 0))
    add_hyperparameters(writer, shape)
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(writer, shape.vocab, shape.n_vocab)

    factors = rope_factors(shape) if isinstance(shape.rope_scaling, Llama3Rope) else None
    factors_name = f"{gguf.TENSOR_NAMES[T.ROPE_FREQS]}.weight"
    if factors is not None:
        writer.add_tensor_info(factors_name, factors.shape, factors.dtype, factors.nbytes)
    for tensor, qtype in plan:
        row_bytes = gguf.quant_shape_to_byte_shape(tensor.shape, qtype)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), math.prod(row_bytes), qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()

    digest = hashlib.sha256()

    def write(name: str, data: npt.NDArray[Any]) -> None:
        digest.update(name.encode())
        digest.update(data.view(np.uint8).data)
        writer.write_tensor_data(data)

    if factors is not None:
        write(factors_name, factors)
    for tensor, qtype in plan:
        write(tensor.name, tensor_data(tensor, qtype, seed))
    writer.close()
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a GGUF file with random weights and a real model's shape.")
    parser.add_argument("shape", choices=SHAPES | MEASURED)
    parser.add_argument("path", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, default="F32")
    parser.add_argument("--pure", action="store_true", help="every matrix in that type, the head as well")
    parser.add_argument("--layers", type=int, help="how many layers to write, where not all")
    parser.add_argument("--cut", action="store_true", help="with --layers: as much less of the vocabulary too")
    parser.add_argument("--tiny", action="store_true", help="the same architecture, scaled down")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    shape = (SHAPES | MEASURED)[options.shape]
    if options.tiny:
        shape = shape.scaled_down()
    if options.layers is not None:
        shape = shape.cut(options.layers) if options.cut else shape.with_layers(options.layers)
    if options.pure and options.type in ("Q4_K_M", "MXFP4"):
        parser.error(f"{options.type} is a mix: it is never pure")
    print(write_model(shape, options.path, file_type=options.type, seed=options.seed, pure=options.pure))


if __name__ == "__main__":
    main()
