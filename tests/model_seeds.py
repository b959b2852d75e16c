"""The models that mutations start from: tiny ones of every family, over several vocabularies, in many formats."""

from __future__ import annotations

import lzma
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "benchmarks")]  # pytest has it already

import numpy as np
import random_model
import small_vocabularies
from model_drafts import Draft, Stored, type_id
from shapes import SHAPES

from sis_core.registry import Registry
from sis_core.testing.models import write_model

GOLDENS = Path(__file__).parent / "goldens" / "families"


def _from_golden(name: str) -> Draft:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        Path(file.name).write_bytes(lzma.decompress((GOLDENS / f"{name}.gguf.xz").read_bytes()))
        return Draft.read(Path(file.name), name)


def _from_shape(name: str, file_type: str) -> Draft:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        shape = SHAPES[name].scaled_down().with_layers(2)
        random_model.write_model(shape, file.name, file_type=file_type)
        return Draft.read(Path(file.name), f"{name}-{file_type}")


def _wide(registry: Registry, name: str) -> Draft:
    """A LLaMA wide enough for blocks of any size, with its matrices in one format."""
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        draft = Draft.read(write_model(Path(file.name)), f"wide-{name}")
    for key, tensor in draft.tensors.items():
        if len(tensor.shape) == 2:
            draft.tensors[key] = quantized(registry, tensor, name)
    return draft


def _with_words(base: str, name: str) -> Draft:
    vocabulary = small_vocabularies.sentencepiece() if name == "spm" else small_vocabularies.byte_level()
    return _from_golden(base).with_vocabulary(f"{base}-{name}", vocabulary)


def _merged(base: str) -> Draft:
    """Experts whose gates and ups are one tensor, the gates first in each."""
    draft = _from_golden(base)
    draft.name = f"{base}-merged"
    tensors = draft.tensors
    for gate in [name for name in tensors if "_gate_exps." in name]:
        both = [tensors.pop(name).values for name in (gate, gate.replace("_gate_", "_up_"))]  # (n_expert, n_ff, …)
        tensors[gate.replace("_gate_", "_gate_up_")] = Stored.of(np.concatenate(both, axis=1))
    return draft


def quantized(registry: Registry, tensor: Stored, name: str) -> Stored:
    rows = registry.get("quant_formats", name).quantize(tensor.values.reshape(-1, tensor.shape[-1]))
    return Stored(tensor.shape, type_id(name), np.ascontiguousarray(rows).reshape(-1).view(np.uint8))


ENCODED = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "F16", "BF16", "MXFP4", "Q5_0", "Q3_K")
EXTRA: dict[str, Callable[[Registry], Draft]] = {
    **{f"llama-{name}": (lambda _, name=name: _with_words("llama", name)) for name in ("spm", "bpe")},
    "gpt-oss-spm": lambda _: _with_words("gpt-oss", "spm"),
    **{f"{base}-merged": (lambda _, base=base: _merged(base)) for base in ("qwen3moe", "gpt-oss", "glm4moe")},
    **{
        f"{shape}-{file_type}": (lambda _, shape=shape, file_type=file_type: _from_shape(shape, file_type))
        for shape, file_type in (("pythia-160m", "F32"), ("phi-3-mini", "Q8_0"), ("gemma-3-1b", "Q4_0"))
    },
    **{f"wide-{name}": (lambda registry, name=name: _wide(registry, name)) for name in ENCODED},
}
"""Seeds that are not goldens: other vocabularies, families without a golden, formats."""
NAMES = (*sorted(path.name.removesuffix(".gguf.xz") for path in GOLDENS.glob("*.gguf.xz")), *EXTRA)


class Seeds:
    """Each made when it is first wanted."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._made: dict[str, Draft] = {}

    def __getitem__(self, name: str) -> Draft:
        if name not in self._made:
            self._made[name] = EXTRA[name](self.registry) if name in EXTRA else _from_golden(name)
        return self._made[name]
