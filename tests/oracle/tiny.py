"""A tiny random model of a family, written as a transformers checkpoint."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import transformers
from alibi import put_alibi
from families import BOS, COMMON, EOS, N_VOCAB, Family
from renamed import RENAMED

SEED = 1


def config(family: Family) -> Any:
    """The transformers configuration of the family's tiny model."""
    values = dict(family.config) if "text_config" in family.config else COMMON | dict(family.config)
    return transformers.AutoConfig.for_model(family.model_type, **values)


def coarse_normal(name: str, shape: tuple[int, ...], std: float) -> npt.NDArray[np.float32]:
    """About normal numbers that are few different multiples of a power of two, so that a file of them packs well.

    A binomial of n coins has the standard deviation √n / 2 in steps; n is between 6 and 24.
    """
    random = np.random.Generator(np.random.PCG64([SEED, zlib.crc32(name.encode())]))
    step = 2.0 ** np.floor(np.log2(std / 1.225))
    n = round(4 * (std / step) ** 2)
    return ((random.binomial(n, 0.5, shape) - n / 2) * step).astype(np.float32)


def perturb(model: Any, gains: dict[str, float]) -> None:
    """Give every parameter random values whose errors show in the logits, in place.

    Scores of attention spread by more than one; norms are not all the same; biases and corrections are not zero.
    """
    corrections = {n: b for n, b in model.named_buffers() if n.endswith(("correction_bias", "expert_bias"))}
    with torch.no_grad():
        for name, parameter in (dict(model.named_parameters()) | corrections).items():
            gain = float(np.prod([factor for part, factor in gains.items() if part in name]))
            shape = tuple(parameter.shape)
            if parameter.ndim < 2 or name.endswith("bias"):  # around what it was: a norm's 1 or 0, a bias' 0
                noise = coarse_normal(name, shape, 0.125 * gain)
                parameter.add_(torch.from_numpy(noise).to(parameter.dtype))
                continue
            if "embed" in name or "lm_head" in name or name.endswith(("wte.weight", "wpe.weight")):
                gain *= 2
            elif any(part in name for part in ("q_proj", "k_proj", "qkv", "c_attn", "query_key_value", "Wqkv")):
                gain *= 1.5
            parameter.copy_(torch.from_numpy(coarse_normal(name, shape, gain / np.sqrt(shape[-1]))))


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE vocabulary of 256 bytes, one merge (llama.cpp refuses none) and three control tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    names = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = {names[b]: b for b in range(256)} | {"he": 256}
    control = {"<s>": BOS, "</s>": EOS, "<unk>": N_VOCAB - 1}
    added = [
        {"id": i, "content": text, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for text, i in control.items()
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h e"]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(named), "utf-8")


def build(family: Family) -> Any:
    """The model in float32, with eager attention."""
    torch.manual_seed(SEED)
    sees = "vision_config" in family.config
    auto: Any = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    model = auto.from_config(
        config(family), dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    perturb(model, dict(family.gains))
    model.tie_weights()
    if family.alibi:
        put_alibi(model)
    return model.eval()


def write_checkpoint(family: Family, folder: Path) -> Any:
    """Write the family's tiny model as a checkpoint into a new folder; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build(family)
    if family.architecture in RENAMED:
        state = RENAMED[family.architecture](model.state_dict(), model.config)
        safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
        model.config.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
    if family.architecture:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [family.architecture]}, indent=2))
    write_tokenizer(folder)
    return model
