"""Texts found by their beginning; of those that are kept for it, the least recently used is given up first.

In the order of their tokens, the texts that share most with any other are its neighbours: a sorted list is all that a
tree of tokens would be. What texts have in common is in memory once, since the cache shares their pages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from sis_core.texts.common import n_common


class Scope(NamedTuple):
    """Whose texts may share: those of one salt, computed with one adapter."""

    salt: str
    adapter: str | None


class _Kept(NamedTuple):
    tokens: tuple[int, ...]
    sequence: int


class Prefixes:
    """Sequences of a session by their tokens. It holds numbers and ids alone; dropping a sequence is the owner's."""

    def __init__(self) -> None:
        self._sorted: dict[Scope, list[_Kept]] = {}
        self._recent: dict[int, tuple[Scope, _Kept]] = {}  # the least recently used first

    def __len__(self) -> int:
        return len(self._recent)

    def find(self, scope: Scope, tokens: Sequence[int]) -> tuple[int | None, int]:
        """The sequence that begins most like ``tokens``, and for how many of them; (None, 0) when nothing does."""
        texts = self._sorted.get(scope, [])
        at = bisect_left(texts, (tuple(tokens),))
        shared = [(n_common(kept.tokens, tokens), kept.sequence) for kept in texts[max(at - 1, 0) : at + 1]]
        n, sequence = max(shared, default=(0, -1))
        return (sequence, n) if n else (None, 0)

    def texts(self, scope: Scope) -> list[tuple[int, ...]]:
        """The tokens of all sequences of a scope, the least recently used first."""
        return [kept.tokens for own, kept in self._recent.values() if own == scope]

    def use(self, sequence: int) -> None:
        """It is the most recently used now."""
        self._recent[sequence] = self._recent.pop(sequence)

    def add(self, scope: Scope, sequence: int, tokens: Sequence[int]) -> int | None:
        """Note a sequence, and return one that is not noted (any longer), since it is the beginning of another."""
        kept = _Kept(tuple(tokens), sequence)
        texts = self._sorted.setdefault(scope, [])
        at = bisect_left(texts, (kept.tokens,))
        longer = texts[at] if at < len(texts) else None
        if longer and longer.tokens[: len(kept.tokens)] == kept.tokens:
            self.use(longer.sequence)
            return sequence
        shorter = texts[at - 1] if at else None
        texts.insert(at, kept)
        self._recent[sequence] = scope, kept
        if shorter and shorter.tokens == kept.tokens[: len(shorter.tokens)]:
            self.discard(shorter.sequence)
            return shorter.sequence
        return None

    def pop(self) -> int | None:
        """Give up the least recently used sequence; None when there is none."""
        sequence = next(iter(self._recent), None)
        if sequence is not None:
            self.discard(sequence)
        return sequence

    def discard(self, sequence: int) -> None:
        """Forget a sequence; one that is not noted is no error."""
        if sequence not in self._recent:
            return
        scope, kept = self._recent.pop(sequence)
        texts = self._sorted[scope]
        del texts[bisect_left(texts, kept)]
        if not texts:
            del self._sorted[scope]
