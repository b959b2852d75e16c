"""What one step feeds of each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sis_core.step import MultiStepLimit
from sis_core.texts.ahead import NOTHING, Ahead
from sis_core.texts.part import Asked, Part, Rows, Want, gone_on
from sis_core.texts.running import Text


class Share(NamedTuple):
    """What a step feeds of one text.

    Attributes:
        start: the place in the text from which it is fed.
        n: how many of its own tokens.
        ahead: what is fed after these; only where nobody reads a prompt.
    """

    text: Text
    start: int
    n: int
    ahead: Ahead = NOTHING

    def gone_on(self, rows: Rows) -> Share:
        """The same once a backend has gone on by itself: what it fed was chosen as it was found."""
        tokens = gone_on(rows)
        return self._replace(ahead=Ahead(tokens)) if tokens else self


class Feed(NamedTuple):
    """A step.

    Attributes:
        decodes: whether nobody reads a prompt: each text has one token to feed, and what is fed ahead.
        alone: whether each row must have the bits of a step of its own; None for where one is fed again.
        n_rows: how many rows.
        greedy: whether no text looks at more than which token is best.
        multi_step: how far the backend may go on by itself with the one text.
    """

    shares: Sequence[Share]
    decodes: bool
    alone: bool | None
    n_rows: int
    greedy: bool
    multi_step: MultiStepLimit | None = None

    @property
    def parts(self) -> list[Part]:
        """What is appended to each text."""
        return [text.part(start, n, ahead) for text, start, n, ahead in self.shares]

    def asked(self, want: Want) -> Asked:
        """What is wanted of their rows."""
        return Asked(want, self.alone, self.greedy, self.multi_step)

    def gone_on(self, results: Mapping[int, Rows]) -> Feed:
        """The same once a backend has gone on by itself, as far as the rows that came back tell."""
        if not self.multi_step:
            return self
        return self._replace(shares=[share.gone_on(results[share.text.number]) for share in self.shares])
