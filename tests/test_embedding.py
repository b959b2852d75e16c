"""Vectors of texts."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import metadata, write_model

from sis_core import load
from sis_core.cli.main import group
from sis_core.errors import ModelError, SisError, SourceError
from sis_core.texts.embedding import Pooling, in_groups, pooled, pooling_of
from sis_core.texts.language_model import LanguageModel

GOLDENS = sorted((Path(__file__).parent / "goldens" / "embeddings").glob("*.npz"))


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    with load(n_threads=1) as model:
        yield model


def saying(metadata: Mapping[str, Any]) -> Any:
    return SimpleNamespace(config=SimpleNamespace(architecture="llama"), metadata=metadata, path="x.gguf")


@pytest.mark.parametrize(("pooling", "row"), [("first", 0), ("last", -1), ("mean", None), (None, None)])
def test_a_vector_is_of_the_hidden_states(model: LanguageModel, pooling: str | None, row: int | None) -> None:
    text = "Two hens and a goat."
    rows = model.hidden(text).astype("f8")
    expected = rows.mean(0) if row is None else rows[row]
    (vector,) = model.embed([text], pooling=pooling)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_vectors_of_several_are_those_of_each(model: LanguageModel) -> None:
    texts = ["Two hens.", "A goat went home, and was seen no more.", "Hen"]
    together = model.embed([*texts[:2], model.tokenize(texts[2])])
    assert together.shape == (3, model.config.n_embd)
    for vector, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(vector, model.embed([text])[0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_the_file_says_how(model: LanguageModel) -> None:
    assert [pooling_of(saying({"llama.pooling_type": kind})) for kind in (0, 1, 2, 3)] == [
        "mean", "mean", "first", "last",
    ]  # fmt: skip
    assert pooling_of(saying({})) == "mean"
    assert pooling_of(saying({"llama.pooling_type": 1}), "last") == "last"
    with pytest.raises(ModelError, match="pooling_type"):
        pooling_of(saying({"llama.pooling_type": 4}))


def test_what_is_no_pooling_or_no_list_is_refused(model: LanguageModel) -> None:
    with pytest.raises(SisError, match="pooling"):
        model.embed(["x"], pooling="max")
    with pytest.raises(SisError, match="one text, not several"):
        model.embed(cast(Any, "x"))


def test_groups_hold_so_many_tokens() -> None:
    prompts = [[0] * n for n in (3, 4, 9, 1, 1, 1)]
    assert [[len(prompt) for prompt in group] for group in in_groups(prompts, 7)] == [[3, 4], [9], [1, 1, 1]]


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_vectors_are_those_of_transformers(path: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{path.stem}.gguf"
    packed = path.parents[1] / "families" / f"{path.stem}.gguf.xz"
    file.write_bytes(lzma.decompress(packed.read_bytes()))
    with np.load(path) as golden, load(file, n_threads=1) as model:
        lengths = [int(name.removeprefix("ids_")) for name in golden if name.startswith("ids_")]
        assert len(lengths) == 3
        texts = [golden[f"ids_{length}"].tolist() for length in lengths]
        for pooling in get_args(Pooling):
            found = model.embed(texts, pooling=pooling)
            for vector, length in zip(found, lengths, strict=True):
                assert float(vector @ golden[f"{pooling}_{length}"]) >= 0.9999


def test_the_end_token_is_the_last_where_the_file_asks_for_one(tmp_path: Path) -> None:
    """As Qwen3-Embedding's file does."""
    changes = {"llama.pooling_type": 3, "tokenizer.ggml.add_eos_token": True}
    file = write_model(tmp_path / "model.gguf", metadata(**changes))
    with load(file, n_threads=1) as model:
        plain = model.tokenizer.encode("hen", add_special=False)
        (end,) = model.tokenizer.end_tokens
        ids = model.tokenize("hen")
        assert ids[-len(plain) - 1 :] == [*plain, end]
        expected = model.hidden(ids)[-1].astype("f8")
        np.testing.assert_allclose(model.embed(["hen"])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_nothing_has_no_length() -> None:
    assert pooled(np.zeros((2, 3), np.float32), "mean").tolist() == [0, 0, 0]


def test_the_command_prints_vectors_or_writes_them(model: LanguageModel, tmp_path: Path) -> None:
    texts = ["Two hens.", "A goat went home."]
    printed = CliRunner().invoke(group, ["embed", *texts])
    assert printed.exit_code == 0, printed.output
    found = [json.loads(line) for line in printed.stdout.splitlines()]
    np.testing.assert_allclose(found, model.embed(texts), atol=1e-2)
    written = CliRunner().invoke(group, ["embed", "-o", str(tmp_path / "x.npy")], input="\n".join(texts))
    assert written.exit_code == 0, written.output
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), found, atol=1e-5)


@pytest.mark.parametrize("given", ["", "one\n\nthree"])
def test_the_command_refuses_a_text_that_is_empty(given: str) -> None:
    done = CliRunner().invoke(group, ["embed"], input=given)
    assert isinstance(done.exception, SourceError)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_vector(value: float) -> None:
    with pytest.raises(ModelError, match="a hidden state that is not finite"):
        pooled(np.array([[1, 2], [value, 0]], np.float32), "last")
