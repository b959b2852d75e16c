"""Which drafters guess what comes next: what ``--speculate`` means."""

from __future__ import annotations

from attrs import frozen

from sis_core.drafter import DraftContext, Drafter
from sis_core.errors import PluginError, SisError, blaming
from sis_core.loading.model import Model
from sis_core.registry import Registry
from sis_core.texts.named import Naming
from sis_core.texts.silent import tokenizer_or_silence

DRAFTERS = Naming("drafters", "drafter", SisError, "give auto, off, or a drafter: NAME or NAME:field=value")


@frozen(eq=False)
class Drafting:
    """Drafters, and how they are used.

    Attributes:
        measured: guesses are fed where that gains by what steps were measured to take; else always.
    """

    drafters: tuple[Drafter, ...] = ()
    measured: bool = False

    def check(self, model: Model) -> None:
        """SisError, before there is a text, where one that was named cannot guess for a model."""
        if self.drafters and not self.measured:
            context = DraftContext(model.config.n_vocab, (), tokenizer_or_silence(model))
            for drafter in self.drafters:
                with blaming(PluginError, f"drafter {drafter.name}"):
                    drafter.start(context)


NOBODY = Drafting()


def make_drafting(registry: Registry, text: str | None) -> Drafting:
    """What ``text`` asks for: ``off``, ``auto`` for all drafters that cost next to nothing, or one by its name. None is
    ``auto``, or ``off`` where no such drafter is installed.

    Raises:
        PluginError: there is no drafter of that name, or none for ``auto``.
        SisError: an option that the drafter does not have or take.
    """
    if text == "off":
        return NOBODY
    if text is None or text == "auto":
        names = sorted({cls.name for cls in registry.records("drafters") if cls.automatic})
        if not names and text is None:
            return NOBODY
        if not names:
            raise PluginError("no drafter is installed", where="speculate", fix="`pip install sis-drafters`")
        return Drafting(tuple(registry.get("drafters", name)() for name in names), measured=True)
    cls, values = DRAFTERS.item(registry, text, "speculate")
    return Drafting((DRAFTERS.build(cls, values),))
