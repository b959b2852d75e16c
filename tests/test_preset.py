"""What a source has set for its models: options, stops, a system message, a context."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sis_chat
import sis_llama
import sis_samplers
import sis_tokenizers
from tiny_models import metadata, write_model

from sis_core import hookimpl
from sis_core.errors import SisError
from sis_core.registry import Registry
from sis_core.source import Preset, Progress, Source
from sis_core.texts.language_model import LanguageModel, load

TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}<s>assistant: "
SET = Preset("Be brief.", {"temperature": 0.25, "top_k": 3, "unheard_of": 1}, ("END",), 96)


class Shop(Source):
    """One model, and what is set for it."""

    name = "shop"

    def __init__(self, path: Path, preset: Preset | Exception | None) -> None:
        self._path, self._preset = path, preset

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        return self._path if reference == "one" else None

    def preset(self, reference: str) -> Preset | None:
        if isinstance(self._preset, Exception):
            raise self._preset
        return self._preset if reference == "one" else None


def opened(folder: Path, preset: Preset | Exception | None, model: str = "shop:one", **options: Any) -> LanguageModel:
    path = write_model(folder / "shop.gguf", metadata(tokenizer__chat_template=TEMPLATE))

    class Plugin:
        @hookimpl
        def sis_register_sources(self) -> Sequence[Source]:
            return [Shop(path, preset)]

    registry = Registry.of(sis_chat, sis_llama, sis_samplers, sis_tokenizers, Plugin())
    return load(model, registry=registry, backend="numpy", **options)


def test_requests_use_it_where_nothing_else_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), opened(tmp_path, SET) as model:
        assert (
            "its source has set temperature 0.25, top_k 3, stop 'END', a system message, a context of 96" in caplog.text
        )
        assert model.config.n_ctx == 96
        chain = {type(s).name: s for s in model.request("he").samplers}
        assert (chain["temperature"].temperature, chain["top-k"].top_k) == (0.25, 3)  # type: ignore[attr-defined]
        assert model.request("he", stop="x").stop == ("x", "END")
        said = {type(s).name: s for s in model.request("he", temperature=0.5).samplers}
        assert (said["temperature"].temperature, said["top-k"].top_k) == (0.5, 3)  # type: ignore[attr-defined]
        assert [type(s).name for s in model.request("he", sampler="greedy").samplers] == ["greedy"]
        with model.with_backend("numpy") as other:
            assert other.preset == model.preset


def test_a_chat_begins_with_its_system_message(tmp_path: Path) -> None:
    with opened(tmp_path, SET) as model, model.conversation() as talk:
        asked = [{"role": "user", "content": "he"}]
        own = [{"role": "system", "content": "Sing."}, *asked]
        assert model.detokenize(talk.tokens(asked)).count("Be brief.") == 1
        assert "Be brief." not in model.detokenize(talk.tokens(own))


def test_what_the_user_says_of_the_context_counts(tmp_path: Path) -> None:
    with opened(tmp_path, SET, n_ctx=64) as model:
        assert model.config.n_ctx == 64


def test_nothing_set(tmp_path: Path) -> None:
    with opened(tmp_path, None) as model:
        assert model.preset == Preset()
    with opened(tmp_path, SET, model=str(tmp_path / "shop.gguf")) as model:  # the file itself, whoever offers it
        assert model.preset == Preset()


@pytest.mark.parametrize("error", [SisError("is damaged"), RuntimeError("is damaged")])
def test_a_source_that_fails_costs_a_line(tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path, error) as model:
        assert model.preset == Preset()
    assert "what is set for the model is not used" in caplog.text
