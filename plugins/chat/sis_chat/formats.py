"""The chat formats that this plugin registers. Opening one imports Jinja; naming it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sis_chat.errors import TemplateError
from sis_chat.named import TEMPLATES, NamedTemplate
from sis_core.chat import Chat, ChatFormat

if TYPE_CHECKING:
    from sis_chat.chat import Opened


class JinjaFormat(ChatFormat):
    """The template in the model's file, or another Jinja template that the caller gives."""

    name: ClassVar[str] = "jinja"
    score: ClassVar[int] = 50

    def open(self, model: Opened, template: str | None) -> Chat | None:
        """A chat by ``template`` or the file's own; None where neither is there."""
        from sis_chat.chat import TEMPLATE_KEY, JinjaChat

        if template is not None:
            return JinjaChat(model, template, name="chat template")
        source = model.metadata.get(TEMPLATE_KEY)
        if source is None:
            return None
        if not isinstance(source, str):
            raise TemplateError(
                f"is not a text but of the type {type(source).__name__}",
                where=TEMPLATE_KEY,
                fix="name a template with --template",
            )
        return JinjaChat(model, source, name=TEMPLATE_KEY)


class NamedFormat(ChatFormat):
    """One of the templates of `sis_chat.named`: answers to its name only."""

    template: ClassVar[NamedTemplate]

    def open(self, model: Opened, template: str | None) -> Chat | None:
        """A chat by the named template; another ``template`` is not this format's."""
        from sis_chat.chat import JinjaChat

        if template is not None:
            return None
        return JinjaChat(model, self.template.source, name=self.name, stop=self.template.stop)


def all_formats() -> list[ChatFormat]:
    """The formats, each named template as one."""
    named = [type(f"{t.name}Format", (NamedFormat,), {"name": t.name, "template": t}) for t in TEMPLATES]
    return [JinjaFormat(), *(kind() for kind in named)]
