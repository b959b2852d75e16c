"""Vectors of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sis_core import load
from sis_core.errors import ModelError, SisError
from sis_core.texts.embedding import pooled, pooling_of
from sis_core.texts.language_model import LanguageModel


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
    with pytest.raises(SisError, match="list of texts"):
        model.embed(cast(Any, "x"))


def test_nothing_has_no_length() -> None:
    assert pooled(np.zeros((2, 3), np.float32), "mean").tolist() == [0, 0, 0]
