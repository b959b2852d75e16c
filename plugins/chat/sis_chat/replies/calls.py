"""Reading the calls of a reply, in each shape that `sis_chat.replies.format.Calls` can say."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sis_chat.errors import ReplyError
from sis_chat.replies import values
from sis_chat.replies.format import SLOTS, Calls
from sis_chat.replies.reader import Reader, Steps, drop
from sis_core.chat import CallArguments, CallEnd, CallStart, Event, Tool

ID_LENGTH = 9  # what Mistral's templates ask for
CDATA, CDATA_END = "<![CDATA[", "]]>"  # how XML spells a text that would be tags
_NAME_END = re.compile(r"[\s<\"]")  # what harmony puts between a name and its arguments
_ALPHABET = string.ascii_letters + string.digits


def new_id() -> str:
    """A fresh id of a call."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))


class CallReader:
    """Makes events of calls. An attempt that finds none takes what it likes: the caller keeps the text.

    Attributes:
        openers: the texts that tell that calls begin, and how each then goes on; empty where calls are bare JSON.
    """

    def __init__(self, calls: Calls, tools: Sequence[Tool], reader: Reader, add: Callable[[Event], None]) -> None:
        self._calls, self._reader, self._add = calls, reader, add
        self._schemas: Mapping[str, Any] = {
            str(tool["function"]["name"]): tool["function"].get("parameters") for tool in tools
        }
        self._n_calls = 0
        first = calls.section.open.strip() or calls.open.strip()
        self.openers = {first: calls.call} if first else {}
        self.openers |= {SLOTS.split(other, maxsplit=1)[0].strip(): other for other in calls.also}

    def after_opener(self, opener: str) -> Steps[bool]:
        """After the opener of a section, or of one call."""
        calls = self._calls
        before = self._n_calls
        if not calls.section.open.strip():
            return (yield from self._call(self.openers[opener]))
        if calls.listed:
            return (yield from self._list())
        close = calls.section.close.strip()
        while True:
            next_one = yield from self._reader.skip_space(",")
            if not next_one:
                return self._n_calls > before
            if close and (yield from self._reader.literal(close)):
                return self._n_calls > before
            if not (yield from self._reader.literal(calls.open)) or not (yield from self._call()):
                return self._n_calls > before

    def without_opener(self) -> Steps[bool]:
        """Calls without any text around them, where the reply begins with a bracket."""
        if self._calls.listed:
            return (yield from self._list())
        return (yield from self._call())

    def _list(self) -> Steps[bool]:
        before = self._n_calls
        if not (yield from self._reader.literal("[")):
            return False
        while (yield from self._reader.skip_space(",")) not in ("]", ""):
            if not (yield from self._call()):
                return self._n_calls > before
        yield from self._reader.exact("]")
        yield from self._reader.literal(self._calls.section.close)
        return self._n_calls > before

    def _call(self, pattern: str = "") -> Steps[bool]:
        """One call after its opening text; False where it is none and nothing was said of it."""
        calls = self._calls
        parts = SLOTS.split(pattern or calls.call)  # text, slot, text, slot …, text
        name, id = "", ""
        for i in range(1, len(parts), 2):
            slot, after = parts[i], parts[i + 1]
            if slot == "arguments":
                close = after
                break
            stops = _stops(after)
            if parts[i + 2 : i + 3] == ["arguments"] and calls.arguments == "tags":
                stops = (*stops, calls.argument.split("{key}")[0].strip(), parts[i + 3].strip())
            found: list[str] = []
            stop = yield from self._reader.until(tuple(filter(None, stops)), found.append)
            text = "".join(found).strip()
            if stop is None or not text:
                return False
            if stop.strip() and stop != after.strip():
                self._reader.untake(stop)
            if slot == "name":
                name = _NAME_END.split(text, maxsplit=1)[0]
            elif slot == "id":
                id = text
        else:
            return False
        if calls.arguments == "call":
            return (yield from self._whole_call(close))
        if not name:
            return False
        start = self._start(name, id)
        yield from getattr(self, f"_{calls.arguments}")(start, close)
        return True

    def _start(self, name: str, id: str = "") -> _Call:
        self._reader.forget()
        call = _Call(self._add, self._n_calls, self._schemas.get(name))
        self._add(CallStart(self._n_calls, id or new_id(), name))
        self._n_calls += 1
        return call

    def _whole_call(self, close: str) -> Steps[bool]:
        """A JSON object with the name and the arguments."""
        calls, reader = self._calls, self._reader
        if not (yield from reader.literal("{")):
            return False
        started, name, id, early = None, "", "", ""
        depth = 1
        while (character := (yield from reader.skip_space(","))) != "":
            if character == "}":
                reader.take(1)
                depth -= 1
                if depth == 0:
                    break
                continue
            key = yield from self._string()
            if key is None or not (yield from reader.literal(":")):
                return started is not None
            if calls.inner_key and key == calls.inner_key and depth == 1:
                if not (yield from reader.literal("{")):
                    return False
                depth += 1
            elif not calls.name_key and started is None:
                if not self._may_call(key):
                    return False
                started = self._start(key)
                yield from reader.json_value(started.push)
            elif key == calls.arguments_key and name and started is None:
                started = self._start(name, id)
                yield from self._object_or_text(started)
            else:
                found: list[str] = []
                if not (yield from reader.json_value(found.append)):
                    return started is not None
                text = "".join(found)
                if key == calls.name_key:
                    name = _text(text)
                    if not self._may_call(name):
                        return False
                elif key == calls.arguments_key:
                    early = text
                elif key == calls.id_key:
                    id = _text(text)
        if started is None:
            if not name or depth:
                return False
            started = self._start(name, id)
            started.push(_unquoted(early) or "{}")
        if depth == 0:
            yield from reader.literal(close)
            started.end()
        return True

    def _may_call(self, name: str) -> bool:
        """Whether a call in plain JSON is one: without a text before it, only a tool's name tells."""
        return bool(name) and (bool(self.openers) or name in self._schemas)

    def _string(self) -> Steps[str | None]:
        if (yield from self._reader.skip_space()) != '"':
            return None
        found: list[str] = []
        if not (yield from self._reader.json_value(found.append)):
            return None
        return _text("".join(found))

    def _object_or_text(self, call: _Call) -> Steps[None]:
        """Arguments as an object, streamed, or as a text that holds one."""
        if (yield from self._reader.skip_space()) == '"':
            found: list[str] = []
            yield from self._reader.json_value(found.append)
            call.push(_unquoted("".join(found)))
        else:
            yield from self._reader.json_value(call.push)

    def _json(self, call: _Call, close: str) -> Steps[None]:
        """Arguments as a JSON object after the name."""
        if (yield from self._reader.skip_space()) == "{":
            if not (yield from self._reader.json_value(call.push)):
                return
        else:
            stop = yield from self._reader.until((close.strip(),) if close.strip() else (), drop)
            if stop is None and close.strip():
                return
            call.push("{}")
            call.end()
            return
        yield from self._reader.literal(close)
        call.end()

    def _tags(self, call: _Call, close: str) -> Steps[None]:
        """Each argument between texts of its own; their types come from the schema."""
        head, before_value, after_value = _tag(self._calls.argument)
        opener, ender = head.strip(), close.strip()
        n = 0
        while True:
            stop = yield from self._reader.until(tuple(filter(None, (opener, ender))), drop)
            if stop is None:
                return
            if stop == ender and stop != opener:
                break
            if opener == "" or not (yield from self._argument(call, n, before_value, after_value)):
                return
            n += 1
        call.push("}" if n else "{}")
        call.end()

    def _argument(self, call: _Call, n: int, before_value: str, after_value: str) -> Steps[bool]:
        calls, reader = self._calls, self._reader
        middle, _, rest = before_value.partition("{type}")
        found: list[str] = []
        if (yield from reader.until((middle.strip(),), found.append)) is None:
            return False
        key = "".join(found).strip()
        kind: list[str] = []
        typed = bool(rest) or "{type}" in before_value
        if typed and (yield from reader.until((rest.strip(),), kind.append)) is None:
            return False
        wrapper = before_value[len(before_value.rstrip()) :]
        if wrapper:
            yield from reader.exact(wrapper)
        schema = values.properties_of(call.schema).get(key)
        as_text = "".join(kind) == calls.text_type if typed else values.is_text(schema)
        call.push(("{" if n == 0 else ", ") + values.as_json(key) + ": ")
        closing = after_value.replace("{key}", key)
        if (yield from reader.exact(CDATA)):
            closing = CDATA_END + closing
        stops = tuple(dict.fromkeys(stop for stop in (closing.rstrip(), closing.strip()) if stop.strip()))
        if as_text:
            call.push('"')
            if (yield from reader.until(stops, lambda text: call.push(values.as_json(text)[1:-1]))) is None:
                return False
            call.push('"')
            return True
        raw: list[str] = []
        if (yield from reader.until(stops, raw.append)) is None:
            return False
        mark = calls.argument.split("<{key}>")[0].strip()
        text = "".join(raw)
        if "<{key}>" in calls.argument and mark:
            call.push(values.as_json(values.elements(text, mark, schema)))
        else:
            call.push(values.as_json(values.typed(text, {} if typed else schema)))
        return True

    def _python(self, call: _Call, close: str) -> Steps[None]:
        text = yield from self._enclosed("([{", ")]}", ("'", '"'))
        if text is None:
            return
        try:
            call.push(values.as_json(values.python_arguments(text)))
        except ReplyError:
            return
        yield from self._reader.literal(close)
        call.end()

    def _braces(self, call: _Call, close: str) -> Steps[None]:
        text = yield from self._enclosed("{[", "}]", (self._calls.quote,))
        if text is None:
            return
        try:
            call.push(values.as_json(values.braces("{" + text + "}", self._calls.quote)))
        except ReplyError:
            return
        yield from self._reader.literal(close)
        call.end()

    def _enclosed(self, opening: str, closing: str, quotes: tuple[str, ...]) -> Steps[str | None]:
        """Text up to the bracket that closes one already open, which is left; None where none comes."""
        found: list[str] = []
        depth = 0
        while True:
            stop = yield from self._reader.until((*opening, *closing, *quotes), found.append)
            if stop is None:
                return None
            if stop in quotes:
                found.append(stop)
                if not (yield from self._quoted(stop, found)):
                    return None
                continue
            depth += 1 if stop in opening else -1
            if depth < 0:
                self._reader.untake(stop)
                return "".join(found)
            found.append(stop)

    def _quoted(self, quote: str, found: list[str]) -> Steps[bool]:
        while True:
            stop = yield from self._reader.until((quote, "\\") if len(quote) == 1 else (quote,), found.append)
            if stop is None:
                return False
            found.append(stop)
            if stop == quote:
                return True
            if not (yield from self._reader.peek()):
                return False
            found.append(self._reader.take(1))


class _Call:
    """The arguments of one call as they come."""

    def __init__(self, add: Callable[[Event], None], index: int, schema: Any) -> None:
        self._add, self._index, self.schema = add, index, schema
        self._pieces: list[str] = []

    def push(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._add(CallArguments(self._index, text))

    def end(self) -> None:
        self._add(CallEnd(self._index, "".join(self._pieces)))


def _stops(after: str) -> tuple[str, ...]:
    """What ends a slot: the text after it, or where that is white space only, a line's end."""
    if after.strip():
        return (after.strip(),)
    return ("\n",) if after else ()


def _tag(argument: str) -> tuple[str, str, str]:
    """An argument's text before its key, between key and value, and after the value."""
    head, _, rest = argument.partition("{key}")
    before, _, after = rest.partition("{value}")
    return head, before, after


def _text(raw: str) -> str:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _unquoted(raw: str) -> str:
    """The text that a JSON text holds; other JSON as it is."""
    return _text(raw) if raw.startswith('"') else raw
