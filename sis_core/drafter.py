"""Drafters: guesses of the tokens that come next, for a model to check several in one step.

A guess never changes a text: each row is sampled by the text's own chain, and a guess is kept while it equals what was
sampled. A drafter decides only how many steps that takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from attrs import frozen

if TYPE_CHECKING:
    from sis_core.tokenizer import Tokenizer


@frozen(eq=False)
class DraftContext:
    """What a drafter may know of the text it starts on.

    Attributes:
        tokens: the ids so far, the prompt's at first.
        past: ids of texts that ended, the latest last; only of those that this text may know of.
    """

    n_vocab: int
    tokens: Sequence[int] = ()
    tokenizer: Tokenizer | None = None
    past: Sequence[Sequence[int]] = ()


class DraftState(ABC):
    """One drafter following one text."""

    @abstractmethod
    def propose(self, k: int) -> Sequence[int]:
        """At most ``k`` ids that may come next, in order; none where it has no guess. Changes nothing."""

    @abstractmethod
    def accept(self, token: int) -> None:
        """Called once for every token that joins the text, whoever guessed it."""

    @abstractmethod
    def copy(self) -> Self:
        """An independent state."""


class Drafter(ABC):
    """Options of a drafter: an attrs class whose fields are options, as those of a `Sampler`.

    Attributes:
        name: unique among drafters: what ``--speculate`` calls it.
        automatic: whether ``--speculate auto`` uses it: it needs no option, and a guess takes microseconds.
    """

    name: ClassVar[str]
    automatic: ClassVar[bool] = False

    @abstractmethod
    def start(self, context: DraftContext) -> DraftState:
        """A state for one text."""
