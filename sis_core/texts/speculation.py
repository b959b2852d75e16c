"""What a step feeds ahead: for each text that is decoded, the tokens that will or may follow its last one.

Whatever is fed ahead, a text stays the same: each of its tokens is chosen by its own chain from a row that has the bits
of a step of its own, and what was not chosen is taken back (speculative decoding, Leviathan et al. 2023, with a draw
that is a function of seed and step in the place of rejection sampling).
"""

from __future__ import annotations

from collections.abc import Mapping

from sis_core.texts.ahead import Ahead
from sis_core.texts.running import Text


class Speculation:
    """Plans the steps of a scheduler.

    Args:
        rows: of a step at most.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._cramped = False

    def plan(self, texts: Mapping[int, Text]) -> dict[int, Ahead]:
        """What to feed ahead for texts that have one token to feed each, by their numbers; not those without."""
        room = 0 if self._cramped else self._rows - len(texts)
        self._cramped = False
        found: dict[int, Ahead] = {}
        for number, text in texts.items():
            if (n := min(room, text.n_ahead)) > 0 and (forced := text.forced()).tokens:
                found[number] = forced.first(n)
                room -= len(found[number].tokens)
        return found

    def cramp(self) -> None:
        """There was no room for what was planned: the next step feeds nothing ahead."""
        self._cramped = True
