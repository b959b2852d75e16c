"""A plugin for `llm` (llm.datasette.io): sis's models are its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm import hookimpl

if TYPE_CHECKING:
    import click

    from llm_sis.house import House


class Plugin:
    """What `llm` registers; it keeps the models that were loaded."""

    def __init__(self) -> None:
        self._house: House | None = None

    @property
    def house(self) -> House:
        """Made when first asked for: `llm --help` needs none of it."""
        from llm_sis.house import House

        if self._house is None:
            self._house = House()
        return self._house

    @hookimpl
    def register_models(self, register: Callable[..., None]) -> None:
        from llm_sis.models import AsyncSisModel, SisModel

        for name, reference in self.house.names().items():
            resident = self.house.resident(reference)
            register(SisModel(name, self.house, resident), AsyncSisModel(name, self.house, resident))

    @hookimpl
    def register_embedding_models(self, register: Callable[..., None]) -> None:
        from llm_sis.embedding import SisEmbeddingModel

        for name, reference in self.house.names().items():
            register(SisEmbeddingModel(name, self.house.resident(reference)))

    @hookimpl
    def register_commands(self, cli: click.Group) -> Any:
        from llm_sis.commands import sis

        cli.add_command(sis)


plugin = Plugin()
