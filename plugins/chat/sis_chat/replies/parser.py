"""One engine for every `ReplyFormat`: text in pieces, events out, the same however the text was cut."""

from __future__ import annotations

from collections.abc import Sequence

from sis_chat.replies.calls import CallReader
from sis_chat.replies.format import Region, ReplyFormat
from sis_chat.replies.reader import Reader, Steps, drop
from sis_chat.replies.trimmed import Trimmed
from sis_core.chat import Content, Event, Reasoning, Tool


class Parser:
    """A `sis_core.chat.ReplyParser` for one reply.

    Args:
        format: how the model writes.
        tools: what may be called; their schemas say which arguments are texts.
        begun: what the template already wrote of the reply. It makes no events.
    """

    def __init__(self, format: ReplyFormat, tools: Sequence[Tool] = (), begun: str = "") -> None:
        self._format = format
        self._events: list[Event] = []
        self._reader = Reader()
        self._calls = CallReader(format.calls, tools, self._reader, self._add) if format.calls and tools else None
        self._begun = 0  # characters that the template wrote and nothing has claimed yet
        space = format.content.open
        self._content = Trimmed(self._say, strip=bool(space) and not space.strip())
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
            if self._calls is not None and not self._calls.openers and content.at_start:
                begin = yield from reader.skip_space()
                if begin and begin in "[{" and (yield from self._tried(self._calls.without_opener())):
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
            if kind == "calls" and not (yield from self._tried_after(stop or "")):
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
        thought = Trimmed(lambda text: self._add(Reasoning(text)), strip=True)
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

    def _tried_after(self, opener: str) -> Steps[bool]:
        assert self._calls is not None
        return (yield from self._tried(self._calls.after_opener(opener)))

    def _tried(self, attempt: Steps[bool]) -> Steps[bool]:
        """Whether an attempt to read calls found one; else all it took comes again."""
        self._reader.keep()
        found = yield from attempt
        if found:
            self._reader.forget()
        else:
            self._reader.back()
        return found


def _openers(format: ReplyFormat, calls: CallReader | None) -> dict[str, str]:
    """What may end the answer, and what then begins."""
    found: dict[str, str] = {}
    for end in format.ends:
        if end.strip():
            found[end.strip()] = "end"
    found |= dict.fromkeys(calls.openers if calls is not None else (), "calls")
    found |= dict.fromkeys(format.also, "content")
    for region, kind in ((format.content, "content"), (format.reasoning or Region(), "reasoning")):
        if region.open.strip():
            found[region.open.strip()] = kind
        if region.close.strip():  # also one that nothing opened
            found.setdefault(region.close.strip(), "content")
    return found
