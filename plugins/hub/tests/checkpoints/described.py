"""Checkpoints that data describe: what transformers writes as configuration, and the shapes of tensors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from checkpoints.files import (
    LLAMA_PIECES,
    Weights,
    byte_level_tokenizer,
    write_pieces,
    write_safetensors,
    write_tokenizer,
)

FOLDER = Path(__file__).parent / "described"
GLM = ["<|endoftext|>", "[gMASK]", "<|user|>", "<|observation|>"]
ADDED = {"glm4": GLM, "glm4moe": GLM}  # control tokens after the 263 others; else "<s>" and "</s>"
PIECES = ("ernie4_5", "ernie4_5_moe", "baichuan", "internlm2", "phimoe")  # those with a SentencePiece vocabulary
ENDS = {"internlm2": {"<|im_end|>": (275, True)}}  # in place of a piece; it ends a turn, and so the text


def names(pattern: str) -> list[str]:
    """What a name with ranges ``{0..3}`` or lists ``{0,2}`` stands for."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    which, _, after = rest.partition("}")
    first, dots, last = which.partition("..")
    numbers = range(int(first), int(last) + 1) if dots else map(int, which.split(","))
    return [f"{before}{i}{name}" for i in numbers for name in names(after)]


def write(name: str, folder: Path) -> None:
    about = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    first = 1 if name in PIECES else 263
    config = about["config"] | {"bos_token_id": first, "eos_token_id": first + 1}
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    if name in PIECES:
        added = {"<unk>": (0, True), "<s>": (1, True), "</s>": (2, True)} | ENDS.get(name, {})
        write_pieces(folder, LLAMA_PIECES, added, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    else:
        control = ADDED.get(name, ["<s>", "</s>"])
        write_tokenizer(folder, byte_level_tokenizer(None, control), bos_token=control[0], eos_token=control[1])
    weights = Weights(sum(map(ord, name)))
    for pattern, shape in about["tensors"].items():
        for tensor in names(pattern):
            weights.add(tensor, *shape)
            if tensor.endswith(("_blocks", "_scales")):
                bits = (weights.tensors[tensor] * 1024 + 128).astype(np.uint8)
                weights.tensors[tensor] = bits if tensor.endswith("_blocks") else bits % 8 + 118  # small exponents
    write_safetensors(folder / "model.safetensors", weights.tensors, "BF16")


DESCRIBED = {path.stem: partial(write, path.stem) for path in sorted(FOLDER.glob("*.json"))}
