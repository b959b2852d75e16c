"""What checkpoints are made of: safetensors, vocabularies, configurations, and random weights.

Weights are multiples of 1/1024 with eight bits, so they are the same number in F32, F16 and BF16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray[Any, Any]]
N_VOCAB, N_EMBD = 320, 32
WORDS = ["▁t", "he", "▁the", "in", "▁a", "er", "on", "▁", "t", "h", "e", "i", "n", "a", "r", "o", "s"]
LLAMA_PIECES = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "F32") -> None:
    """One file; BF16 is made by cutting, which loses nothing here. What is no float keeps its type."""
    header, blobs, at = {}, [], 0
    for name, values in tensors.items():
        if values.dtype == np.float32:
            kind = dtype
            blob = values.astype("<f2").tobytes() if dtype == "F16" else values.astype("<f4").tobytes()
            if dtype == "BF16":
                blob = values.astype("<f4").view("<u2").reshape(-1, 2)[:, 1].tobytes()
        else:
            kind, blob = {"bool": "BOOL", "int64": "I64", "uint8": "U8"}[values.dtype.name], values.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in byte-level vocabularies, in order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def byte_level_tokenizer(pattern: str | None, added: list[str], *, ignore_merges: bool = False) -> dict[str, Any]:
    """A tokenizer.json of 256 bytes, some merges, and control tokens at the end of the vocabulary."""
    letters = sorted(byte_letters())
    vocab = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for left, right in [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("e", "r"), ("o", "n")]:
        merges.append([left, right])
        vocab[left + right] = len(vocab)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    pre = byte_level if pattern is None else {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": len(vocab) + i, "content": text, "special": not text.startswith("<tool"), "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}
            for i, text in enumerate(added)
        ],
        "normalizer": None,
        "pre_tokenizer": pre,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges},
    }  # fmt: skip


def sentencepiece_model(first: list[tuple[str, int]], words: list[str]) -> bytes:
    """A tokenizer.model: the first pieces with their types, 256 bytes, then words with falling scores."""
    pieces = [(text, 0.0, kind) for text, kind in first]
    pieces += [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    pieces += [(word, -float(i), 1) for i, word in enumerate(words)]
    data = b""
    for text, score, kind in pieces:
        body = _bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)
        data += _bytes(1, body)
    trainer = _number(3, 2) + _number(35, 1)  # BPE, with bytes to fall back on
    return data + _bytes(2, trainer) + _bytes(3, _bytes(1, b"identity") + _number(3, 1))


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def _number(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def write_tokenizer(folder: Path, tokenizer: dict[str, Any], **config: Any) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}))


def write_pieces(folder: Path, first: list[tuple[str, int]], added: Mapping[str, Any], **config: Any) -> None:
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(first, WORDS))
    decoder = {str(i): {"content": text, "special": special} for text, (i, special) in added.items()}
    config = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": decoder, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), "utf-8")


def write_config(folder: Path, architecture: str, model_type: str, **config: Any) -> None:
    values = {"architectures": [architecture], "model_type": model_type, **config}
    (folder / "config.json").write_text(json.dumps(values, indent=1), "utf-8")


class Weights:
    """Random tensors by name."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self.tensors: Tensors = {}

    def add(self, name: str, *shape: int) -> None:
        self.tensors[name] = self._rng.integers(-128, 128, shape).astype(np.float32) / 1024

    def norm(self, name: str, *, bias: bool = False) -> None:
        self.tensors[f"{name}.weight"] = self._rng.integers(64, 192, N_EMBD).astype(np.float32) / 128
        if bias:
            self.add(f"{name}.bias", N_EMBD)

    def linear(self, name: str, n_out: int, n_in: int, *, bias: bool = False) -> None:
        self.add(f"{name}.weight", n_out, n_in)
        if bias:
            self.add(f"{name}.bias", n_out)
