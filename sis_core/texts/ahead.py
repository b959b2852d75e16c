"""Tokens that are fed before they are chosen, as rows of the step of the token before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Ahead(NamedTuple):
    """What may follow the last token of a text. It stays as far as it is what the text's own chain then chooses.

    Attributes:
        tokens: ids, in order.
        n_blind: how many of the first are chosen whatever the logits are, so that nobody need compute these.
    """

    tokens: Sequence[int] = ()
    n_blind: int = 0

    def first(self, n: int) -> Ahead:
        """No more than ``n`` of them."""
        return Ahead(self.tokens[:n], min(self.n_blind, n))


NOTHING = Ahead()
