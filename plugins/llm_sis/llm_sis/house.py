"""Which models there are, and those that were loaded."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_sis import added
from sis_core import load
from sis_core.chat import Event, Message
from sis_core.errors import SourceError
from sis_core.registry import Registry
from sis_core.source import each_once
from sis_core.texts.conversation import Conversation
from sis_core.texts.language_model import LanguageModel

log = logging.getLogger(__name__)

DEFAULT = "sis"


class House:
    """Models by the names that `llm` knows them by.

    Args:
        registry: sis's plugins; by default all that are installed.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = Registry.load() if registry is None else registry
        self._residents: dict[str | None, Resident] = {}

    def names(self) -> dict[str, str | None]:
        """References by name: the default model, what sources have on this machine, and what `llm sis add` has added.

        Files have the names that they have without ``.gguf``.
        """
        found: dict[str, str | None] = {DEFAULT: os.environ.get("SIS_MODEL") or None}
        listed = (listing for source in self.registry.records("sources") for listing in source.list())
        for listing in each_once(listed):
            found[f"{DEFAULT}/{listing.name}"] = listing.name
        try:
            found |= {f"{DEFAULT}/{name}": reference for name, reference in added.read().items()}
        except SourceError as error:  # of one plugin: `llm` goes on with its other models
            log.warning("%s", error)
        return found

    def resident(self, reference: str | None) -> Resident:
        """The model of a reference, the same one whenever it is asked for."""
        return self._residents.setdefault(reference, Resident(reference, self.registry))

    def close(self) -> None:
        """Free all models; they are loaded again when they are asked."""
        for resident in self._residents.values():
            resident.close()


class Resident:
    """A model that is loaded when it is first used, and its conversations. Any thread may use it."""

    def __init__(self, reference: str | None, registry: Registry) -> None:
        self.reference, self._registry = reference, registry
        self._lock, self._talking = threading.Lock(), threading.Lock()
        self._model: LanguageModel | None = None
        self._conversations: dict[str | None, Conversation] = {}

    @property
    def model(self) -> LanguageModel:
        """SisError where it cannot be loaded."""
        with self._lock:
            if self._model is None:
                path = self.reference if self.reference is None else _expanded(self.reference)
                self._model = load(path, registry=self._registry)
            return self._model

    def stream(self, messages: Sequence[Message], template: str | None, options: Mapping[str, Any]) -> Generator[Event]:
        """The events of a reply; one that goes on from what was read before reads only what is new."""
        with self._conversation(template) as conversation:
            yield from conversation.stream(messages, **options)

    @contextmanager
    def _conversation(self, template: str | None) -> Generator[Conversation]:
        """The one that is kept for a template, or one of its own where that one is talking: it is for one at a time."""
        if not self._talking.acquire(blocking=False):
            with self.model.conversation(template) as own:
                yield own
            return
        try:
            kept = self._conversations.get(template)
            if kept is None:
                kept = self._conversations[template] = self.model.conversation(template)
            yield kept
        finally:
            self._talking.release()

    def close(self) -> None:
        """Free it."""
        with self._talking, self._lock:
            for conversation in self._conversations.values():
                conversation.close()
            self._conversations = {}
            if self._model is not None:
                self._model.close()
            self._model = None


def _expanded(reference: str) -> str:
    path = Path(reference).expanduser()
    return str(path) if path.exists() else reference
