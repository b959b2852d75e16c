"""How a model writes a reply, as a record. Nothing here runs: `sis_chat.replies.parser` reads every format."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

Arguments = Literal["call", "json", "tags", "python", "braces"]
SLOTS = re.compile(r"\{(name|id|index|arguments|key|type|value)\}")


@frozen
class Region:
    """A part of a reply between two texts. An empty ``open`` begins where nothing else does."""

    open: str = ""
    close: str = ""


@frozen
class Calls:
    """How tool calls are written. White space in these texts may be more or less in a reply.

    Attributes:
        call: one call, with the slots ``{name}``, ``{id}``, ``{index}`` and ``{arguments}``, such as
            ``<function={name}>{arguments}</function>``.
        arguments: what stands at ``{arguments}``: a JSON object that is the whole ``call``, a ``json`` object of the
            arguments, one of ``tags`` for each, ``python`` keyword arguments, or Gemma's ``braces``.
        argument: for tags, one argument with the slots ``{key}``, ``{type}`` and ``{value}``.
        text_type: what stands at ``{type}`` for a text; values of other types are JSON.
        quote: for braces, what stands around a text.
        section: what stands around all calls.
        listed: the calls are the items of one JSON list.
        name_key, arguments_key, id_key: of a ``call``'s object. An empty ``name_key`` means that the name is the key
            and the arguments are its value.
        inner_key: the key of the object inside the call's object that has these keys, or empty.
        also: other spellings of ``call`` that models of this kind write, though their template does not.
    """

    call: str
    arguments: Arguments
    argument: str = ""
    text_type: str = ""
    quote: str = ""
    section: Region = Region()
    listed: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    inner_key: str = ""
    also: tuple[str, ...] = ()

    @property
    def open(self) -> str:
        """What comes before the first slot."""
        return SLOTS.split(self.call, maxsplit=1)[0]


@frozen
class ReplyFormat:
    """How one model writes replies.

    Attributes:
        header: what the template writes before a reply: the reply begins after its last occurrence.
        content: what stands around the answer.
        reasoning: what stands around what is thought, or None.
        calls: how tools are called, or None.
        ends: texts that end a turn.
        also: other texts that open an answer.
        arguments_as_text: the template wants the arguments of calls as JSON text, not as an object.
    """

    header: str = ""
    content: Region = Region()
    reasoning: Region | None = None
    calls: Calls | None = None
    ends: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    arguments_as_text: bool = False
