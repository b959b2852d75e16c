"""Headers as loaders printed them in public reports: each file runs, or is refused for a reason that one accepts.

Keys and values are those of the reports, named beside each; where a report was cut, ids of tokens, the file type and
the like are what the converter of its time wrote. Sizes are those of the small model whose weights they are put before,
and ids of tokens lie within its vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_vocabularies
from attrs import field, frozen
from family_suite import content, write_golden

from sis_core.errors import SisError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.registry import Registry
from sis_core.texts.language_model import load

REGISTRY = Registry.load()
Arrays = dict[str, np.ndarray[Any, Any]]
EVERY_FILE = (  # sizes that every file says, and that are those of the small model
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
)  # fmt: skip
SIZES = {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16, "vocab_size": 260}
GENERAL = {  # what converters of 2024 and later say of a model's origin
    "general.type": "model", "general.finetune": "Instruct", "general.basename": "model", "general.size_label": "7B",
    "general.license": "apache-2.0", "general.license.link": "LICENSE", "general.base_model.count": 1,
    "general.base_model.0.name": "base", "general.base_model.0.organization": "somebody",
    "general.base_model.0.repo_url": "somewhere", "general.tags": ["chat", "text-generation"],
    "general.languages": ["en"],
}  # fmt: skip
SPM = {"tokenizer.ggml.model": "llama"}
BPE = {"tokenizer.ggml.model": "gpt2"}


@frozen
class Header:
    """A header.

    Attributes:
        seen: the project and the number of the issue or pull request in which it was printed.
        golden: the small model whose weights it gets.
        keys: its keys, without the architecture's name before those of the architecture.
        says: words of the warnings at load, in order.
        refused: words of the refusal; empty where the file runs.
    """

    seen: str
    golden: str
    keys: Mapping[str, Any]
    architecture: str = ""
    says: tuple[str, ...] = ()
    refused: str = ""
    extra: Mapping[str, Any] = field(factory=dict)  # tensors beside those of the small model


HEADERS = {
    "llama-2-7b, GGUF 2 of 2023": Header(
        "MindSQL issue 1",
        "llama",
        {
            **SPM, "general.name": "LLaMA v2", "context_length": 4096, "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": 128, "general.quantization_version": 2, "general.file_type": 13,
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        },
    ),
    "codellama, as Ollama has it": Header(
        "Ollama pull request 5059",
        "llama",
        {
            **SPM, "general.name": "codellama", "context_length": 16384, "rope.dimension_count": 128,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e6, "general.file_type": 2,
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "general.quantization_version": 2,
        },
    ),
    "llava-v1.6-mistral-7b": Header(
        "ComfyUI_VLM_nodes issue 133",
        "llama",
        {
            **SPM, "general.name": "1.6", "context_length": 32768, "rope.dimension_count": 128,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e6, "general.file_type": 15,
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False, "general.quantization_version": 2,
        },
    ),
    "Llama 3, converted in its first days": Header(
        "llama.cpp pull request 6745",
        "llama",
        {
            **BPE, "context_length": 8192, "rope.dimension_count": 128, "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.freq_base": 500000.0, "general.file_type": 1, "tokenizer.ggml.scores": [0.0] * 260,
            "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
        },
        says=("tokenizer.ggml.pre is missing",),
    ),
    "starcoder2-3b of the day of its support": Header(
        "llama.cpp pull request 5795",
        "starcoder2",
        {
            **BPE, "general.name": "starcoder2-3b", "context_length": 16384, "attention.layer_norm_epsilon": 1e-5,
            "general.file_type": 0, "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
            "tokenizer.ggml.unknown_token_id": 259,
        },
        says=("missing keys", "tokenizer.ggml.pre is missing"),
    ),
    "Qwen2.5-Coder-7B-Instruct": Header(
        "ollama-intel-gpu issue 32",
        "qwen2",
        {
            **BPE, **GENERAL, "general.name": "Qwen2.5 Coder 7B Instruct", "context_length": 32768,
            "rope.freq_base": 1e6, "attention.layer_norm_rms_epsilon": 1e-6, "general.file_type": 15,
            "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.eos_token_id": 258, "tokenizer.ggml.padding_token_id": 257,
            "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.add_bos_token": False,
            "general.quantization_version": 2,
        },
    ),
    "a merge of Qwen 2 models that says its head size": Header(
        "ik_llama.cpp issue 1986",
        "qwen2",
        {
            **BPE, **GENERAL, "context_length": 32768, "rope.freq_base": 640000.0,
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.key_length": 16, "attention.value_length": 16,
            "general.file_type": 32, "general.quantization_version": 2, "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.eos_token_id": 258, "tokenizer.ggml.bos_token_id": 257,
        },
    ),
    "granite 3": Header(
        "llama-box issue 17",
        "granite",
        {
            **BPE, **GENERAL, "context_length": 131072, "rope.freq_base": 1e7, "attention.layer_norm_rms_epsilon": 1e-5,
            "general.file_type": 7, "vocab_size": 49155, "rope.dimension_count": 128, "attention.scale": 0.0078125,
            "embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 16.0, "tokenizer.ggml.pre": "refact",
            "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
            "tokenizer.ggml.unknown_token_id": 259, "tokenizer.ggml.padding_token_id": 258,
            "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False,
        },
    ),
    "command-r, as Ollama has it": Header(
        "Ollama issue 4636",
        "command-r",
        {
            **BPE, "general.name": "c4ai-command-r-v01", "context_length": 131072, "attention.layer_norm_epsilon": 1e-5,
            "rope.freq_base": 8e6, "general.file_type": 7, "logit_scale": 0.0625, "rope.scaling.type": "none",
            "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
            "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False, "general.quantization_version": 2,
        },
        says=("tokenizer.ggml.pre is missing",),
    ),
    "gemma-2-27b, as Ollama has it": Header(
        "Ollama issue 5832",
        "gemma2",
        {
            **SPM, "general.name": "gemma-2-27b-it", "context_length": 8192, "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.key_length": 128, "attention.value_length": 128, "general.file_type": 1,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 4096,
            "tokenizer.ggml.pre": "default", "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
            "tokenizer.ggml.add_space_prefix": False, "general.quantization_version": 2,
        },
    ),
    "gemma-3-4b with its eyes, as Ollama has it": Header(
        "Ollama issue 18548",
        "gemma3",
        {
            **SPM, "context_length": 131072, "attention.key_length": 256, "attention.value_length": 256,
            "attention.sliding_window": 1024, "mm.tokens_per_image": 256, "vision.attention.head_count": 16,
            "vision.attention.layer_norm_epsilon": 1e-6, "vision.block_count": 27, "vision.embedding_length": 1152,
            "vision.feed_forward_length": 4304, "vision.image_size": 896, "vision.num_channels": 3,
            "vision.patch_size": 14, "general.file_type": 15, "general.quantization_version": 2,
            "tokenizer.ggml.pre": "default", "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
            "tokenizer.ggml.add_padding_token": False, "tokenizer.ggml.add_unknown_token": False,
        },
        says=("rope.freq_base=1000000.0, gemma3.rope.scaling.factor=8.0", "2 tensors that see or hear are left out"),
        extra={f"{name}.weight": np.ones((4, 4)) for name in ("v.patch_embedding", "mm.mm_input_projection")},
    ),
    "Phi-3-mini-4k of its first weeks, before windows": Header(
        "Ollama issue 5956",
        "llama",
        {
            **SPM, "general.name": "Phi3", "context_length": 4096, "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": 96, "general.file_type": 15, "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False, "general.quantization_version": 2,
        },
        architecture="phi3",
        says=("phi3.attention.sliding_window is missing",),
    ),
    "Phi-4-mini-reasoning": Header(
        "Ollama issues 12722 and 9496",
        "llama",
        {
            **BPE, **GENERAL, "rope.scaling.attn_factor": 1.190238, "general.name": "Phi 4 Mini Reasoning",
            "context_length": 131072, "rope.scaling.original_context_length": 4096,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
            "attention.sliding_window": 262144, "general.file_type": 15, "tokenizer.ggml.pre": "gpt-4o",
            "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
            "tokenizer.ggml.unknown_token_id": 258, "tokenizer.ggml.padding_token_id": 258,
            "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False,
        },
        architecture="phi3",
        extra={f"rope_factors_{which}.weight": np.full(8, f, np.float32) for which, f in (("short", 1), ("long", 4))},
    ),
    "Llama-3.3-Nemotron-Super-49B": Header(
        "Ollama issue 11471",
        "llama",
        {
            **BPE, **GENERAL, "rope.freq_base": 500000.0, "attention.head_count_kv": [2, 0, 2],
            "attention.head_count": [4, 0, 4], "feed_forward_length": [96, 96, 0], "context_length": 131072,
            "attention.layer_norm_rms_epsilon": 1e-5,
        },
        architecture="deci",
        refused="no installed plugin brings the architecture 'deci'",
    ),
    "llama3.2-vision, as Ollama has it": Header(
        "ipex-llm issue 12861",
        "llama",
        {**BPE, **GENERAL, "context_length": 131072, "attention.layer_norm_rms_epsilon": 1e-5},
        architecture="mllama",
        refused="no installed plugin brings the architecture 'mllama'",
    ),
}  # fmt: skip


def write(header: Header, folder: Path) -> Path:
    """The small model with the header in front of it."""
    small = write_golden(header.golden, folder)
    own, weights = content(small)
    arrays: Arrays = {name: weight.dequantize() for name, weight in weights.items()}
    golden = own["general.architecture"]
    architecture = header.architecture or golden
    values: dict[str, Any] = {"general.architecture": architecture}
    sizes = {name: own[f"{golden}.{name}"] for name in EVERY_FILE if f"{golden}.{name}" in own}
    sizes |= {name: own.get(f"{golden}.{name}", size) for name, size in SIZES.items() if name in header.keys}
    for name, value in (sizes | {k: v for k, v in header.keys.items() if k not in SIZES}).items():
        values[name if name.startswith(("general.", "tokenizer.")) else f"{architecture}.{name}"] = value
    if values["tokenizer.ggml.model"] == "llama":
        spelt = small_vocabularies.sentencepiece()
        n = len(spelt["tokenizer.ggml.tokens"])
        arrays |= {
            k: np.resize(arrays[k], (n, arrays[k].shape[1]))
            for k in ("token_embd.weight", "output.weight")
            if k in arrays
        }
    else:
        with GGUFFile.open(small) as file:
            spelt = dict(file.metadata)
    values |= {k: v for k, v in spelt.items() if k.rpartition(".")[2] in ("tokens", "token_type", "merges", "scores")}
    writer = GGUFWriter(folder / "model.gguf", values)
    for name, array in {**(fused(arrays) if architecture == "phi3" else arrays), **header.extra}.items():
        writer.add_tensor(name, array.shape, "F32", [np.ascontiguousarray(array, np.float32)])
    writer.write()
    return folder / "model.gguf"


def fused(arrays: Arrays) -> Arrays:
    """Weights of a LLaMA as Phi 3 stores them."""
    made = dict(arrays)
    for layer in {name.split(".")[1] for name in arrays if name.startswith("blk.")}:
        take = {
            role: made.pop(f"blk.{layer}.{role}.weight")
            for role in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
        }
        made[f"blk.{layer}.attn_qkv.weight"] = np.concatenate([take["attn_q"], take["attn_k"], take["attn_v"]])
        made[f"blk.{layer}.ffn_up.weight"] = np.concatenate([take["ffn_gate"], take["ffn_up"]])
    return made


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_runs_or_says_why_not(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = HEADERS[name]
    path = write(header, tmp_path)
    caplog.set_level(logging.WARNING)
    if header.refused:
        with pytest.raises(SisError, match=header.refused):
            load(path, registry=REGISTRY, backend="numpy")
        return
    with load(path, registry=REGISTRY, backend="numpy") as model:
        assert np.isfinite(model.logits("the keepers of the")).all()
        (done,) = model.generate_batch(["the keepers"], max_tokens=3, sampler="greedy", ignore_end=True)
        assert (len(done.tokens), done.error, done.degraded) == (3, None, False)
    assert len(caplog.messages) == len(header.says), caplog.messages
    for said, words in zip(caplog.messages, header.says, strict=True):
        assert words in said
