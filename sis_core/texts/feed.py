"""What one step feeds of each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sis_core.texts.ahead import NOTHING, Ahead
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


class Feed(NamedTuple):
    """A step.

    Attributes:
        decodes: whether nobody reads a prompt: each text has one token to feed, and what is fed ahead.
        alone: whether each row must have the bits of a step of its own; None for where one is fed again.
        n_rows: how many rows.
        greedy: whether no text looks at more than which token is best.
    """

    shares: Sequence[Share]
    decodes: bool
    alone: bool | None
    n_rows: int
    greedy: bool
