"""Who writes a model's chats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sis_core.chat import Chat, ChatFormat
from sis_core.errors import ChatError, package_for
from sis_core.loading.checks import check_option

if TYPE_CHECKING:
    from sis_core.texts.language_model import LanguageModel


def open_chat(model: LanguageModel, template: str | os.PathLike[str] | None = None) -> Chat:
    """The chat of ``template``, a format's name or a file with a template; of the model's own where it is None.

    Raises:
        ChatError: nobody knows how this model's chats are written, or the template cannot be read.
    """
    check_option("template", template, kind=(str, os.PathLike), optional=True)
    template = None if template is None else os.fspath(template)
    formats: list[ChatFormat] = model.registry.records("chat_formats")
    if not formats:
        package = package_for("chat_formats", "jinja")
        raise ChatError("no installed plugin knows how chats are written", where="chat", fix=f"`pip install {package}`")
    source = None
    named = None if template is None else model.registry.find("chat_formats", template)
    by_name = ", ".join(sorted(format.name for format in formats if format.score <= 0))  # others are asked unnamed
    if template is not None and named is None:
        source = _read(template, by_name)
    for format in [f for f in formats if f.score > 0] if named is None else [named]:
        if (chat := format.open(model, source)) is not None:
            return chat
    raise ChatError(
        "the file has no chat template, so nobody knows how to talk to this model",
        where=model.path.name,
        fix=f"name one that it was trained with (--template): a Jinja file, or one of {by_name}",
    )


def _read(template: str, by_name: str) -> str:
    path = Path(template).expanduser()
    try:
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ChatError(
            f"is neither a file ({reason}) nor a chat format", where=template, fix=f"formats are: {by_name}"
        ) from None
