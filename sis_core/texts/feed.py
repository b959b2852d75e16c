"""What one step feeds of each text."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from sis_core.texts.ahead import NOTHING, Ahead
from sis_core.texts.running import Text


@frozen(eq=False)
class Feed:
    """Parts of texts by the texts' numbers.

    Attributes:
        starts: the place in its text from which each is fed.
        shares: how many of its own tokens.
        ahead: what is fed after these; not for all, and only where nobody reads a prompt.
        decodes: whether nobody does.
        alone: whether each row must have the bits of a step of its own.
    """

    texts: Mapping[int, Text]
    starts: Mapping[int, int]
    shares: Mapping[int, int]
    ahead: Mapping[int, Ahead]
    decodes: bool
    alone: bool

    @property
    def n_rows(self) -> int:
        return sum(self.shares.values()) + sum(len(ahead.tokens) for ahead in self.ahead.values())

    @property
    def tokens(self) -> dict[int, list[int]]:
        """The ids."""
        return {
            number: [*self.texts[number].ids[start : start + n], *self.after(number).tokens]
            for number, n in self.shares.items()
            for start in [self.starts[number]]
        }

    @property
    def outputs(self) -> dict[int, int]:
        """How many of each one's last rows are looked at."""
        return {
            number: self.texts[number].outputs(self.starts[number], n, self.after(number))
            for number, n in self.shares.items()
        }

    def after(self, number: int) -> Ahead:
        """What is fed ahead for one text."""
        return self.ahead.get(number, NOTHING)
