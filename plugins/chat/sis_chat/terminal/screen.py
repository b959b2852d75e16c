"""What a reply looks like: Markdown on a terminal, block by block as it comes; the bare text in a pipe."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from sis_core.chat import CallEnd, CallStart, Content, Event, Reasoning
from sis_core.cli.streams import printable, write_text

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
REFRESH = 12  # times a second


class Page(Protocol):
    """Shows one reply; a context manager."""

    def show(self, event: Event) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainPage:
    """The answer as it is; calls on lines of their own; thoughts are left out."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._column = 0

    def show(self, event: Event) -> None:
        match event:
            case Content(text):
                self._write(text)
            case CallStart(index, _, name):
                self._names[index] = name
            case CallEnd(index, arguments):
                self._write("\n" * bool(self._column) + f"{self._names[index]}({arguments})\n")

    def _write(self, text: str) -> None:
        write_text(text)
        if text:
            self._column = 0 if text.endswith("\n") else 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._column:
            self._write("\n")


class MarkdownPage:
    """Blocks that are complete are printed for good; the last one is drawn anew as it grows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""
        self._kind: type[Content] | type[Reasoning] = Content
        self._names: dict[int, str] = {}
        self._refreshed = 0.0
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def show(self, event: Event) -> None:
        match event:
            case Content(text) | Reasoning(text):
                if type(event) is not self._kind:
                    self._settle()
                    self._kind = type(event)
                self._grow(text)
            case CallStart(index, _, name):
                self._settle()
                self._names[index] = name
            case CallEnd(index, arguments):
                self._console.print(Text(printable(f"→ {self._names[index]}({arguments})"), "cyan"))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
        self._live.stop()

    def _grow(self, text: str) -> None:
        self._text += visible(text)
        if (end := end_of_blocks(self._text)) > 0:
            done, self._text = self._text[:end], self._text[end:]
            self._live.update(Text(""))
            self._console.print(self._drawn(done))
        self._live.update(_Tail(self._drawn(self._text)))
        if (now := time.monotonic()) - self._refreshed > 1 / REFRESH:  # to draw takes longer than a token
            self._live.refresh()
            self._refreshed = now

    def _settle(self) -> None:
        text, self._text = self._text, ""
        self._live.update(Text(""), refresh=True)
        if text.strip():
            self._console.print(self._drawn(text))

    def _drawn(self, text: str) -> RenderableType:
        if self._kind is Reasoning:
            return Text(text.strip("\n"), "dim italic")
        return Padding(_Markdown(text, hyperlinks=False), (0, 0, 1, 0))  # a link must not hide where it leads


class _Heading(Heading):
    """A heading where everything else begins, not in the middle."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}


class _Tail:
    """As many of the last lines as the window has room for."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._inner, options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()


def visible(text: str) -> str:
    """The text with control characters spelt out, but for line ends and tabs."""
    return "".join(c if c in "\n\t" or c.isprintable() else printable(c) for c in text)


def end_of_blocks(text: str) -> int:
    """Where the last complete block of Markdown ends: after an empty line that is not in fenced code."""
    at = end = 0
    fence = ""
    for line in _lines(text):
        at += len(line)
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif not line.strip() and line.endswith("\n") and text[:at].strip():
            end = at
    return end


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines(keepends=True)
