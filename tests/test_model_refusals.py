"""Files that are sound GGUF but no model that can be run: each is refused at once, and the message says what and where.

One test id for each row of the table of refusals (group B); several files where a row names several faults.
"""

# ruff: noqa: E501 - a table reads better with a case on a line

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from struct import pack
from typing import Any

import gguf_cases
import numpy as np
import pytest
import sis_gpt2
import sis_llama
import sis_q8_0
import sis_qwen
import tiny_models

from sis_core.backend import BackendOptions
from sis_core.errors import GGUFError, SisError
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch
from sis_core.workbench.scan import check_tensors

REGISTRY = Registry.of(sis_gpt2, sis_llama, sis_q8_0, sis_qwen)
Arrays = dict[str, Any]


def load(path: Path) -> Model:
    return open_model(Model, path, REGISTRY, backend="numpy", options=BackendOptions(kv_type="f32"))


def keys(**changes: Any) -> Callable[[Path], Path]:
    """The random model with other keys of llama (``general__…`` and ``tokenizer__…`` for others; None removes one)."""

    def write(folder: Path) -> Path:
        spelt = {
            (key if key.startswith(("general__", "tokenizer__", "qwen2__")) else f"llama__{key}"): value
            for key, value in changes.items()
        }
        return tiny_models.write_model(folder / "model.gguf", tiny_models.metadata(**spelt))

    return write


def tensors(change: Callable[[Arrays], Any], values: Mapping[str, Any] | None = None) -> Callable[[Path], Path]:
    """The random model with other tensors: ``change`` edits the dict of arrays."""

    def write(folder: Path) -> Path:
        arrays = tiny_models.tensors()
        change(arrays)
        return tiny_models.write_model(folder / "model.gguf", dict(values) if values else None, arrays)

    return write


def one_as(name: str, type: str, data: bytes | None = None) -> Callable[[Path], Path]:
    """The random model with one tensor in another type: zeros, or the bytes given."""

    def write(folder: Path) -> Path:
        arrays = tiny_models.tensors()
        writer = GGUFWriter(folder / "model.gguf", tiny_models.metadata())
        for each, array in arrays.items():
            if each != name:
                writer.add_tensor(each, array.shape, "F32", [np.ascontiguousarray(array)])
            else:
                size = {"Q8_0": 34, "Q4_0": 18, "F16": 64}.get(type, 32) * array.size // 32
                writer.add_tensor(each, array.shape, type, [data or bytes(size)], n_bytes=size)
        writer.write()
        return folder / "model.gguf"

    return write


def type_id(name: str, id: int) -> Callable[[Path], Path]:
    """The random model with the type id of one tensor overwritten."""

    def write(folder: Path) -> Path:
        path = tiny_models.write_model(folder / "model.gguf")
        data = bytearray(path.read_bytes())
        at = data.index(gguf_cases.string(name)) + 8 + len(name)
        n_dims = int.from_bytes(data[at : at + 4], "little")
        data[at + 4 + 8 * n_dims : at + 8 + 8 * n_dims] = pack("<I", id)
        path.write_bytes(data)
        return path

    return write


def parts(**changes: Any) -> Callable[[Path], Path]:
    """A model of two parts; ``drop`` removes the second, ``count`` is what it says, ``again`` a tensor it repeats."""

    def write(folder: Path) -> Path:
        def part(no: int, names: list[str], count: int) -> bytes:
            pairs = [
                gguf_cases.pair("split.no", 2, pack("<H", no)),
                gguf_cases.pair("split.count", 2, pack("<H", count)),
                gguf_cases.pair("split.tensors.count", gguf_cases.I32, pack("<i", 2)),
                gguf_cases.pair("general.architecture", gguf_cases.STRING, gguf_cases.string("llama")),
            ]
            entries = [gguf_cases.tensor(name, [8], 0, 32 * i) for i, name in enumerate(names)]
            return gguf_cases.gguf(pairs, entries, bytes(32 * len(names)))

        first = folder / "m-00001-of-00002.gguf"
        first.write_bytes(part(0, ["a"], 2))
        if not changes.get("drop"):
            second = part(1, [changes.get("again", "b")], changes.get("count", 2))
            (folder / "m-00002-of-00002.gguf").write_bytes(second)
        return first

    return write


def q8_0_scale(value: float) -> bytes:
    """32 rows of one Q8_0 block each; the scale of row 3 is ``value``."""
    blocks = np.ones((32, 34), np.uint8)
    blocks[:, :2] = np.full((32, 1), 0.5, "<f2").view(np.uint8)
    blocks[3, :2] = np.array([value], "<f2").view(np.uint8)
    return blocks.tobytes()


HALF = [{"attention__head_count": [4, 4], "attention__head_count_kv": [2, 0]}, {"feed_forward_length": [64, 0]}]
CASES: dict[str, list[tuple[Callable[[Path], Path], str]]] = {
    "architecture missing, not a string, or without a plugin": [
        (keys(general__architecture=None), r"key general\.architecture is missing or not a string"),
        (keys(general__architecture=7), r"key general\.architecture is missing or not a string"),
        (keys(general__architecture="gemma3"), r"no installed plugin .* architecture 'gemma3'.*`pip install sis-gemma`"),
        (keys(general__architecture="llamo"), r"architecture 'llamo'\. Installed are: .*gpt2"),
        (keys(general__type="adapter"), "this file is a LoRA adapter, .*, not a model. Give the model that it was made"),
        (keys(general__type="imatrix"), "this file is an importance matrix, not a model"),
        (keys(general__type="mmproj"), "this file is the part of a model that sees or hears, not a model"),
        (keys(general__architecture="clip"), "this file is the part of a model that sees or hears, not a model"),
    ],
    "block_count 0": [(keys(block_count=0), r"key llama\.block_count is 0, but must be from 1 to 10000")],
    "block_count larger than tensors present": [
        (keys(block_count=3), r"key llama\.block_count is 3, but there are no tensors for layer 2"),
        (keys(block_count=10_001), r"key llama\.block_count is 10001, but must be from 1 to 10000"),
        (keys(block_count=1), r"no use for tensor blk\.1\.attn_q\.weight, .* and 6 more"),
    ],
    "head_count 0": [(keys(attention__head_count=0), r"key llama\.attention\.head_count is 0, but must be from 1")],
    "head_count_kv 0": [(keys(attention__head_count_kv=0), r"key llama\.attention\.head_count_kv is 0, but must be from 1")],
    "heads not divisible by kv heads": [
        (keys(attention__head_count_kv=3), r"layer 0 has 4 query heads, which is not a multiple of its 3 key heads"),
    ],
    "embedding not divisible by heads": [
        (
            keys(attention__head_count=3, attention__head_count_kv=3),
            r"llama\.embedding_length is 32, not a multiple of llama\.attention\.head_count 3.*no llama\.attention\.key_length",
        ),
    ],
    "context_length 0": [(keys(context_length=0), r"key llama\.context_length is 0, but must be from 1")],
    "rope dimension odd or past the head": [
        (keys(rope__dimension_count=7), r"llama\.rope\.dimension_count is 7, but must be even and at most the head size 8"),
        (keys(rope__dimension_count=10), r"llama\.rope\.dimension_count is 10, but must be even and at most"),
    ],
    "rope base 0, negative, NaN": [
        (keys(rope__freq_base=base), rf"key llama\.rope\.freq_base is {base}, but must be above 1")
        for base in (0.0, -1.0, math.nan, math.inf)
    ],
    "norm epsilon negative or NaN": [
        (keys(attention__layer_norm_rms_epsilon=eps), r"key llama\.attention\.layer_norm_rms_epsilon is .*, but must be above 0")
        for eps in (-1e-5, math.nan, 0.0)
    ],
    "per-layer array of another length": [
        (keys(attention__head_count=[4, 4, 4]), r"key llama\.attention\.head_count has 3 values for 2 layers"),
        (keys(feed_forward_length=[64]), r"key llama\.feed_forward_length has 1 values for 2 layers"),
    ],
    "zero inside a per-layer array": [
        (keys(**HALF[0]), r"key llama\.attention\.head_count_kv is 0 for layer 1"),
        (keys(**HALF[1]), r"key llama\.feed_forward_length is 0 for layer 1"),
    ],
    "wrong type for a known key": [
        (keys(block_count="two"), r"key llama\.block_count must be an integer, not the string 'two'"),
        (keys(context_length=2.5), r"key llama\.context_length must be an integer, not 2\.5"),
        (keys(embedding_length=True), r"key llama\.embedding_length must be an integer, not True"),
        (keys(rope__freq_base="big"), r"key llama\.rope\.freq_base must be a number, not the string 'big'"),
        (keys(rope__scaling__type=1), r"key llama\.rope\.scaling\.type must be a string, not 1"),
        (keys(embedding_length=[32]), r"key llama\.embedding_length must be an integer, not an array of 1"),
        (keys(tokenizer__ggml__tokens=7), r"key tokenizer\.ggml\.tokens must be an array of strings"),
        (keys(attention__causal=1), r"key llama\.attention\.causal must be true or false, not 1"),
    ],
    "required tensor missing": [
        (tensors(lambda t: t.pop("token_embd.weight")), r"tensor token_embd\.weight is missing"),
        (tensors(lambda t: t.pop("output_norm.weight")), r"tensor output_norm\.weight \(32,\) is missing"),
        (tensors(lambda t: t.pop("blk.1.ffn_gate.weight")), r"tensor blk\.1\.ffn_gate\.weight \(64, 32\) is missing"),
    ],
    "tensor of wrong shape": [
        (
            tensors(lambda t: t.update({"blk.0.attn_k.weight": t["blk.0.attn_q.weight"]})),
            r"tensor blk\.0\.attn_k\.weight has shape \(32, 32\), but the metadata call for \(16, 32\)",
        ),
        (
            tensors(lambda t: t.update({"blk.0.ffn_norm.weight": np.ones((2, 16), np.float32)})),
            r"tensor blk\.0\.ffn_norm\.weight has shape \(2, 16\), but the metadata call for \(32,\)",
        ),
        (
            tensors(lambda t: t.update({"token_embd.weight": np.ones(32, np.float32)})),
            r"tensor token_embd\.weight has shape \(32,\), not \(n_vocab, n_embd\)",
        ),
    ],
    "embedding rows and tokens differ": [
        (
            tensors(lambda t: t.update({name: t[name][:259] for name in ("token_embd.weight", "output.weight")})),
            r"tokenizer\.ggml\.tokens has 260 tokens, but token_embd\.weight has 259 rows",
        ),
        (
            keys(tokenizer__ggml__tokens=[f"t{i}" for i in range(250)]),
            r"tokenizer\.ggml\.tokens has 250 tokens, but token_embd\.weight has 260 rows",
        ),
    ],
    "tensor type without a codec": [
        (
            one_as("blk.0.ffn_up.weight", "Q4_0"),
            r"tensor blk\.0\.ffn_up\.weight: no installed plugin brings the format 'Q4_0'.*`pip install sis-q4_0`",
        ),
        (one_as("blk.0.ffn_up.weight", "type 7777"), r"tensor blk\.0\.ffn_up\.weight: no installed plugin knows its type 7777"),
    ],
    "removed type ids": [
        (type_id("blk.0.ffn_up.weight", id), rf"tensor 'blk\.0\.ffn_up\.weight' has type {id} \(.*\), which ggml has removed")
        for id in (4, 5, 31, 32, 33, 36, 37, 38)
    ],
    "quantised 1-D norm": [
        (one_as("blk.0.attn_norm.weight", "Q8_0"), r"tensor blk\.0\.attn_norm\.weight is a vector in the block format Q8_0"),
    ],
    "NaN or infinite block scale (opt-in scan)": [
        (
            one_as("blk.1.attn_q.weight", "Q8_0", q8_0_scale(value)),
            r"NaN or infinite in tensor blk\.1\.attn_q\.weight \(Q8_0, row 3, column 0\)",
        )
        for value in (math.nan, math.inf, -math.inf)
    ],
    "shard missing": [(parts(drop=True), r"m-00002-of-00002\.gguf")],
    "shard count mismatch": [(parts(count=3), r"'split\.count' is 3.*must be 2")],
    "tensor in two shards": [(parts(again="a"), r"tensor 'a'.*also in m-00001-of-00002\.gguf")],
    "feature that is not implemented": [
        (keys(expert_count=8, expert_used_count=2), r"tensor blk\.0\.ffn_up_exps\.weight \(8, .*\) is missing"),
        (keys(attn_logit_softcapping=50.0), r"does not implement what the key llama\.attn_logit_softcapping asks for"),
        (keys(final_logit_softcapping=30.0), r"does not implement what the key llama\.final_logit_softcapping asks for"),
        (keys(attention__causal=False), r"key llama\.attention\.causal is false"),
        (keys(rope__scaling__type="ntk"), r"key llama\.rope\.scaling\.type is 'ntk', which is not implemented"),
        (keys(attention__value_length=16), r"llama\.attention\.value_length is 16 and the key heads have 8"),
    ],
}  # fmt: skip


def refused(write: Callable[[Path], Path], folder: Path) -> tuple[SisError, float]:
    """The error, and the seconds it took."""
    path = write(folder)
    start = time.perf_counter()
    with pytest.raises(SisError) as caught, load(path) as model:
        check_tensors(model)
    return caught.value, time.perf_counter() - start


@pytest.mark.parametrize(
    ("write", "says"),
    [pytest.param(*case, id=f"{row}-{i}") for row, cases in CASES.items() for i, case in enumerate(cases)],
)
def test_refusal(write: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    error, seconds = refused(write, tmp_path)
    text = str(error)
    assert re.search(says, text), text
    assert str(tmp_path) in text, "the message must name the file"
    assert error.fix or "general.architecture" in text, "the message must say what to do"
    assert "\n" not in text
    assert seconds < 1.0


def test_refusals_are_fast(tmp_path: Path) -> None:
    """All of them together within 50 ms each, opening and closing the file included."""
    total, n = 0.0, 0
    for row, cases in CASES.items():
        for i, (write, _) in enumerate(cases):
            folder = tmp_path / f"{row} {i}"
            folder.mkdir()
            total += refused(write, folder)[1]
            n += 1
            shutil.rmtree(folder)
    assert total / n < 0.05


def test_sliding_window_of_a_family_without_one(tmp_path: Path) -> None:
    values = {
        key.replace("llama.", "qwen2."): value
        for key, value in tiny_models.metadata(general__architecture="qwen2").items()
    }
    path = tiny_models.write_model(tmp_path / "model.gguf", values | {"qwen2.attention.sliding_window": 16})
    with pytest.raises(SisError, match=r"does not implement what the key qwen2\.attention\.sliding_window asks for"):
        load(path)


@pytest.mark.parametrize("change", ["shrinks", "is rewritten"])
def test_file_that_changes_after_it_was_opened(change: str, tmp_path: Path) -> None:
    path = tiny_models.write_model(tmp_path / "model.gguf")
    with load(path) as model:
        cache = model.new_cache(16)
        model.step(Batch.of([1, 2]), cache)
        if change == "shrinks":
            os.truncate(path, path.stat().st_size - 4096)
        else:
            os.utime(path, ns=(1, 1))
        with pytest.raises(GGUFError, match="after it was opened") as caught:
            model.step(Batch.of([3], position=2), cache)
        assert str(path) in str(caught.value)
        assert cache.length(0) == 2


def test_a_sound_model_passes_the_scan(tmp_path: Path) -> None:
    with load(tiny_models.write_model(tmp_path / "model.gguf")) as model:
        check_tensors(model)


def test_the_table_is_whole() -> None:
    assert len(CASES) + len(["file shrinks or changes after open"]) == 26
