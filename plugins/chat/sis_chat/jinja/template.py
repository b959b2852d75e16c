"""A chat template, compiled once and rendered by any number of threads."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import CodeType, TracebackType
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError

from sis_chat.errors import MessageError, TemplateError
from sis_chat.jinja.functions import RaisedError
from sis_chat.jinja.meter import CeilingError, Ceilings, Meter
from sis_chat.jinja.methods import GivenList
from sis_chat.jinja.sandbox import Sandbox
from sis_chat.jinja.text import GIVEN, given, join

MAX_GIVEN_DEPTH = 64
FIRST_MESSAGE = ord(GIVEN) + 1
SPECIAL_TOKENS = frozenset({"bos_token", "eos_token", "unk_token", "pad_token"})
_REMEDY = "choose another with --template NAME or FILE"


class ChatTemplate:
    """A Jinja template of a model, as transformers renders them.

    Source: the contract of transformers' ``apply_chat_template``: blocks are trimmed, ``raise_exception``,
    ``strftime_now``, ``namespace``, ``{% generation %}``, ``break`` and ``continue`` exist, ``tojson`` leaves HTML.

    Args:
        source: the template's text.
        name: where it came from, for messages.

    Raises:
        TemplateError: it is no template, asks for what it must not have, or is too large.
    """

    def __init__(self, source: str, *, name: str = "chat template", ceilings: Ceilings | None = None) -> None:
        self.source, self.name = source, name
        self._ceilings = ceilings or Ceilings()
        if len(source) > self._ceilings.source:
            raise TemplateError(
                f"has {len(source)} characters, more than {self._ceilings.source}", where=name, fix=_REMEDY
            )
        self._env = Sandbox(Meter(self._ceilings))
        try:
            self._code: CodeType = self._env.compile(source)
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:
            raise self._refused(error, "is not usable") from error

    def render(self, values: Mapping[str, Any]) -> str:
        """What the template makes of ``values`` (messages, tools …), which stay as they are.

        Where a value's text went, the result is a `sis_chat.jinja.text.Text`. Roles are the template's, for templates
        make control tokens of them; see `sis_chat.messages`.

        Raises:
            TemplateError: the template refuses the messages, fails, or goes over a ceiling.
            MessageError: a value is nested too deep.
        """
        entered, size = enter(values)
        meter = Meter(self._ceilings.scaled(size))
        env = self._env.metered(meter)
        template = Template.from_code(env, self._code, dict(env.globals))
        parts: list[str] = []
        try:
            for part in template.root_render_func(template.new_context(entered)):
                meter.write(len(part))
                parts.append(part)
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:
            raise self._refused(error, "fails", template) from error
        return join(parts)

    def _refused(self, error: Exception, what: str, template: Template | None = None) -> TemplateError:
        """The error in our words; its line where one is known."""
        line = error.lineno if isinstance(error, TemplateSyntaxError) else None
        if template is not None:
            line = _line(error.__traceback__, template)
        where = self.name if line is None else f"{self.name}, line {line}"
        if isinstance(error, RaisedError):
            return TemplateError(f"refuses the messages: {error}", where=where)
        if isinstance(error, CeilingError):
            return TemplateError(f"{what}: {error}", where=where, fix=_REMEDY)
        if isinstance(error, RecursionError):
            return TemplateError(f"{what}: it is nested too deep", where=where, fix=_REMEDY)
        reason = str(error) if isinstance(error, JinjaError) else f"{type(error).__name__}: {error}"
        return TemplateError(f"{what}: {reason.rstrip('.')}", where=where, fix=_REMEDY)


def _line(trace: TracebackType | None, template: Template) -> int | None:
    """The last line of the template that a traceback goes through."""
    line = None
    while trace is not None:
        if "debug_info" in trace.tb_frame.f_globals:  # a compiled template
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def enter(values: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Copies of ``values`` in which every string is given text, marked by its message, and every list a `GivenList`.
    The second result is their size.

    Roles stay the template's own words: templates put them into control tokens. Who lets roles in checks them.

    Raises:
        MessageError: lists and dicts are nested more than 64 deep.
    """
    size = 0

    def copied(value: Any, depth: int, mark: str, key: Any = None) -> Any:
        nonlocal size
        if depth > MAX_GIVEN_DEPTH:
            raise MessageError(f"is nested more than {MAX_GIVEN_DEPTH} deep", where="messages")
        size += 16
        if isinstance(value, str):
            size += len(value)
            return str(value) if key == "role" else given(value, mark)
        if isinstance(value, Mapping):
            return {
                given(name, mark) if isinstance(name, str) else name: copied(item, depth + 1, mark, name)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return GivenList(copied(item, depth + 1, mark) for item in value)
        if isinstance(value, tuple):
            return tuple(copied(item, depth + 1, mark) for item in value)
        return value

    entered: dict[str, Any] = {}
    for name, value in values.items():
        if name in SPECIAL_TOKENS:
            entered[name] = value
        elif name == "messages":
            entered[name] = GivenList(copied(item, 1, mark_of(i)) for i, item in enumerate(value))
        else:
            entered[name] = copied(value, 0, GIVEN)
    return entered, size


def mark_of(message: int) -> str:
    """The mark of what the message at that place says."""
    return chr(min(message + FIRST_MESSAGE, sys.maxunicode))


def message_of(mark: str) -> int | None:
    """The message that a mark stands for, or None where it is another's."""
    return ord(mark) - FIRST_MESSAGE if ord(mark) >= FIRST_MESSAGE else None
