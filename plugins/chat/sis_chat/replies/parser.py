"""One engine for every `ReplyFormat`: text in pieces, events out, the same however the text was cut."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sis_chat.errors import ReplyError
from sis_chat.replies import values
from sis_chat.replies.format import SLOTS, Calls, Region, ReplyFormat
from sis_chat.replies.reader import Reader, Steps, drop
from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Event, Reasoning, Tool

ID_LENGTH = 9  # what Mistral's templates ask for
CDATA, CDATA_END = "<![CDATA[", "]]>"  # how XML spells a text that would be tags
_ALPHABET = string.ascii_letters + string.digits


def new_id() -> str:
    """A fresh id of a call."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))


class Parser:
    """A `sis_core.chat.ReplyParser` for one reply.

    Args:
        format: how the model writes.
        tools: what may be called; their schemas say which arguments are texts.
        begun: what the template already wrote of the reply. It makes no events.
    """

    def __init__(self, format: ReplyFormat, tools: Sequence[Tool] = (), begun: str = "") -> None:
        self._format, self._calls = format, format.calls if tools else None
        self._schemas: Mapping[str, Any] = {
            str(tool["function"]["name"]): tool["function"].get("parameters") for tool in tools
        }
        self._events: list[Event] = []
        self._reader = Reader()
        self._n_calls = 0
        self._begun = 0  # characters that the template wrote and nothing has claimed yet
        space = format.content.open
        self._content = _Trimmed(self._say, strip=bool(space) and not space.strip())
        self._steps = self._reply()
        next(self._steps, None)
        self.push(begun)
        self._content.close()
        self._begun = len(self._reader.text)

    def push(self, piece: str) -> list[Event]:
        """What one more piece of the reply's text makes certain."""
        self._reader.text += piece
        return self._run()

    def end(self) -> list[Event]:
        """What was held back. A call that is not complete has no `CallEnd`."""
        self._reader.ended = True
        return self._run()

    def _run(self) -> list[Event]:
        next(self._steps, None)
        events, self._events = self._events, []
        return events

    def _reply(self) -> Steps[None]:
        reader, content = self._reader, self._content
        openers = _openers(self._format, self._calls)
        while True:
            if self._calls is not None and not _first(self._calls) and content.at_start:
                begin = yield from reader.skip_space()
                if begin and begin in "[{" and (yield from self._tried(self._bare_calls())):
                    continue
            stop = yield from reader.until(tuple(openers), self._answer)
            self._begun = 0
            kind = openers.get(stop or "", "end")
            if kind == "end":
                if stop is None:
                    content.flush()
                    return
                content.close()
                yield from reader.until((), drop)  # whatever comes after the end of the turn
                return
            if kind == "calls" and not (yield from self._tried(self._some_calls())):
                content.push(stop or "")
                continue
            content.close()
            if kind == "reasoning":
                yield from self._think()
            content.begin(strip=True)

    def _add(self, event: Event) -> None:
        self._events.append(event)

    def _answer(self, text: str) -> None:
        """More of the answer, but for what the template wrote before it."""
        known = min(self._begun, len(text))
        self._begun -= known
        self._content.push(text[known:])

    def _say(self, text: str) -> None:
        self._add(Content(text))

    def _think(self) -> Steps[None]:
        assert self._format.reasoning is not None
        thought = _Trimmed(lambda text: self._add(Reasoning(text)), strip=True)
        openers = _openers(self._format, self._calls)
        close = self._format.reasoning.close.strip()
        stops = (close, *(o for o, kind in openers.items() if kind == "calls" and o != close)) if close else ()
        stop = yield from self._reader.until(stops, thought.push)
        if stop is None:
            thought.flush()
            return
        thought.close()
        if stop != close:  # a call without an end of thinking
            self._reader.untake(stop)

    def _tried(self, attempt: Steps[bool]) -> Steps[bool]:
        """Whether an attempt to read calls found one; else all it took comes again."""
        self._reader.keep()
        found = yield from attempt
        if found:
            self._reader.forget()
        else:
            self._reader.back()
        return found

    # Calls

    def _some_calls(self) -> Steps[bool]:
        """After the opener of a section, or of one call."""
        calls = self._calls
        assert calls is not None
        before = self._n_calls
        if not calls.section.open.strip():
            return (yield from self._call())
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

    def _bare_calls(self) -> Steps[bool]:
        """Calls without any text around them, where the reply begins with a bracket."""
        assert self._calls is not None
        if self._calls.listed:
            return (yield from self._list())
        return (yield from self._call())

    def _list(self) -> Steps[bool]:
        assert self._calls is not None
        before = self._n_calls
        if not (yield from self._reader.literal("[")):
            return False
        while (yield from self._reader.skip_space(",")) not in ("]", ""):
            if not (yield from self._call()):
                return self._n_calls > before
        yield from self._reader.exact("]")
        yield from self._reader.literal(self._calls.section.close)
        return self._n_calls > before

    def _call(self) -> Steps[bool]:
        """One call after its opening text; False where it is none and nothing was said of it."""
        calls = self._calls
        assert calls is not None
        parts = SLOTS.split(calls.call)  # text, slot, text, slot …, text
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
                name = text
            elif slot == "id":
                id = text
        else:
            return False
        if calls.arguments == "call":
            return (yield from self._whole_call(close))
        if not name or any(character.isspace() for character in name):
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
        assert calls is not None
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
        assert self._calls is not None
        return bool(name) and (bool(_first(self._calls)) or name in self._schemas)

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
        assert self._calls is not None
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
        assert calls is not None
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
        assert self._calls is not None
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


class _Trimmed:
    """Text whose white space at the borders is held back until it is known what comes next."""

    def __init__(self, emit: Any, *, strip: bool) -> None:
        self._emit, self._strip = emit, strip
        self._space = ""
        self.at_start = True

    def begin(self, *, strip: bool) -> None:
        self._space, self._strip, self.at_start = "", strip, True

    def push(self, text: str) -> None:
        body = text.rstrip()
        if body:
            if self.at_start and self._strip:
                self._space, body = "", body.lstrip()
            self._emit(self._space + body)
            self._space, self.at_start = text[len(text.rstrip()) :], False
        else:
            self._space += text

    def close(self) -> None:
        """Something else begins: the white space before it was the template's."""
        self._space = ""

    def flush(self) -> None:
        """Nothing more comes."""
        if self._space and not (self.at_start and self._strip):
            self._emit(self._space)
        self._space = ""


def _first(calls: Calls) -> str:
    """The text that tells that calls begin, or an empty one."""
    return (calls.section.open.strip() or calls.open.strip()).strip()


def _openers(format: ReplyFormat, calls: Calls | None) -> dict[str, str]:
    """What may end the answer, and what then begins."""
    found: dict[str, str] = {}
    for end in format.ends:
        if end.strip():
            found[end.strip()] = "end"
    if calls is not None and _first(calls):
        found[_first(calls)] = "calls"
    for region, kind in ((format.content, "content"), (format.reasoning or Region(), "reasoning")):
        if region.open.strip():
            found[region.open.strip()] = kind
        if region.close.strip():  # also one that nothing opened
            found.setdefault(region.close.strip(), "content")
    return found


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
