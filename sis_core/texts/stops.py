"""Stop strings in streamed text: what could still become one is held back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sis_core.errors import TokenizerError
from sis_core.tokenizer import Tokenizer


def control_tokens(stops: Iterable[str], tokenizer: Tokenizer) -> dict[int, str]:
    """Those of ``stops`` that name a control token, by its id: it adds no text in which the name could be found."""
    found = {}
    for stop in stops:
        try:
            ids = tokenizer.encode(stop, add_special=False, parse_special=True)
        except TokenizerError:  # no vocabulary, or none that can spell it
            continue
        if len(ids) == 1 and not tokenizer.token_bytes(ids[0]):
            found[ids[0]] = stop
    return found


class StopFilter:
    """Passes text on until one of ``stops`` appears; the stop string itself is swallowed.

    Attributes:
        found: the stop string that ended the text, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Text that certainly belongs to the output. When several stops appear, the earliest ends the text."""
        if not self._stops:
            return text
        self._held += text
        places = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            at, self.found = min(places)
            passed, self._held = self._held[:at], ""
            return passed
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        passed, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return passed

    def flush(self, text: str = "") -> str:
        """What was held back, when nothing more comes."""
        passed, self._held = self.push(text) + self._held, ""
        return passed


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
