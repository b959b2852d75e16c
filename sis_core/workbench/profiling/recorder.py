"""Spans of time, nested, of one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from attrs import define, field

from sis_core.texts.feeding import SessionStats


@define(eq=False)
class Span:
    """A stretch of time.

    Attributes:
        part: what was done: ``attention``, ``logits``, ``linear`` …
        owner: the plugin or module that did it.
        detail: of what: a tensor's or a sampler's name.
        layer: number of the layer, or None.
        token: 0 for the prompt, then the number of the generated token.
        start, stop: nanoseconds of a steady clock.
        inner: nanoseconds of it that spans inside it took.
    """

    part: str
    owner: str
    detail: str
    layer: int | None
    token: int
    start: int
    stop: int = 0
    inner: int = 0

    @property
    def ns(self) -> int:
        return self.stop - self.start

    @property
    def self_ns(self) -> int:
        """What the spans inside it do not explain."""
        return self.ns - self.inner


@define(eq=False)
class Recorder:
    """Collects spans. Not thread-safe: it follows the thread that makes the steps.

    ``note`` says how what was timed differs from a normal run, ``stats`` what the session did.
    """

    spans: list[Span] = field(factory=list)
    token: int = 0
    layer: int | None = None
    note: str = ""
    stats: SessionStats = field(factory=SessionStats)
    _open: list[Span] = field(factory=list, init=False)

    def begin(self, part: str, owner: str = "core", detail: str = "") -> Span:
        span = Span(part, owner, detail, self.layer, self.token, perf_counter_ns())
        self._open.append(span)
        return span

    def end(self, span: Span) -> None:
        span.stop = perf_counter_ns()
        while self._open and self._open.pop() is not span:
            pass  # a span inside it was left by an exception
        if self._open:
            self._open[-1].inner += span.ns
        self.spans.append(span)

    @contextmanager
    def span(self, part: str, owner: str = "core", detail: str = "") -> Iterator[None]:
        """Time what runs inside."""
        span = self.begin(part, owner, detail)
        try:
            yield
        finally:
            self.end(span)
