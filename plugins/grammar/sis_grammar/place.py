"""Where a text stands in its grammar: which tokens come next without a choice, and which may follow them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from attrs import frozen
from llguidance import LLMatcher
from numpy.typing import NDArray

from sis_core.errors import SamplerError
from sis_grammar.caps import WHERE

Bools: TypeAlias = NDArray[np.bool_]
MAX_FORCED = 256  # the place after so many is looked for when they are there


@frozen(eq=False)
class Place:
    """A place of one text, or of several that went the same way so far.

    Attributes:
        forced: tokens that come next, whatever the model thinks.
        forbidden: of every token, whether it may not follow them.
        matcher: llguidance's state after ``forced``. It belongs to whoever goes on from here.
    """

    forced: tuple[int, ...]
    forbidden: Bools
    matcher: LLMatcher

    def allows(self, token: int) -> bool:
        """Whether ``token`` may follow after the forced ones."""
        return 0 <= token < len(self.forbidden) and not self.forbidden[token]


def look(matcher: LLMatcher) -> Place:
    """The place of a matcher, which goes on over what is forced.

    Forced bytes become the tokens that the tokenizer makes of them: the mask of each is that token alone.

    Raises:
        SamplerError: no token can follow, or the grammar became too complex.
    """
    forced: list[int] = []
    while len(forced) < MAX_FORCED and not matcher.is_stopped() and (found := matcher.compute_ff_tokens()):
        matcher.consume_tokens(found)
        check(matcher)
        forced += found
    check(matcher)
    mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    check(matcher)
    return Place(tuple(forced), np.unpackbits(~mask, bitorder="little").view(np.bool_), matcher)


def after(place: Place, token: int, *, shared: bool) -> Place:
    """The place after an allowed token; ``shared`` leaves ``place`` to others."""
    matcher = place.matcher.deep_copy() if shared else place.matcher
    matcher.consume_token(token)
    check(matcher)
    return look(matcher)


def check(matcher: LLMatcher) -> None:
    """SamplerError after an error: a matcher then allows nothing but the end, which would look like a whole text."""
    if matcher.is_error():
        reason = first_lines(matcher.get_error())
        raise SamplerError(
            f"the grammar cannot go on: {'no token fits here' if reason.startswith('NoExtension') else reason}",
            where=WHERE,
            fix="a simpler grammar, or one for which the vocabulary has tokens",
        )


def first_lines(message: str) -> str:
    """What llguidance says without its dump of the state, as one line."""
    return " ".join(message.partition("<state>")[0].partition("<non-verbose/>")[0].split())[:400]
