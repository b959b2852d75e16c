"""What answers requests on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from sis_core.loading.alike import identity
from sis_core.loading.recipe import Recipe
from sis_core.texts.language_model import load
from sis_server.batch.application import application
from sis_server.batch.heading import heading
from sis_server.batch.lines import Line
from sis_server.batch.run import answers


class Worker:
    """A model and its application. It answers one shard after another; what is not picklable stays in it.

    Args:
        recipe: of the model.
        at_once: requests of a shard that are on their way at the same time.
    """

    def __init__(self, recipe: Recipe, template: str | None, cache_tokens: int | None, at_once: int) -> None:
        options = attrs.asdict(recipe.options)
        self._held, self._at_once = ExitStack(), at_once
        model = load(recipe.path, preset=recipe.preset, registry=recipe.registry(), **options)
        self._model = self._held.enter_context(model)
        app = application(model, template=template, cache_tokens=cache_tokens, at_once=at_once)
        self._app = self._held.enter_context(app)
        self._heading = heading(model, template=template, cache_tokens=cache_tokens)

    def identity(self) -> dict[str, str]:
        """What all machines must have in common."""
        return identity(self._model) | self._heading

    def heading(self) -> dict[str, str]:
        """What its answers depend on beside the requests."""
        return self._heading

    def answer(self, lines: Sequence[Line]) -> list[bytes]:
        """The answers to requests, in their order."""
        found: list[bytes] = []
        asyncio.run(answers(self._app, iter(lines), at_once=self._at_once, told=found.append))
        return found

    def close(self) -> None:
        self._held.close()
