"""A suffix automaton: all stretches of a text, with the latest place of each, in a few operations a token."""

from __future__ import annotations

from typing import Self

CLIMB = 8  # stretches, the longest first, whose place is brought up to date; shorter ones keep an older one


class SuffixAutomaton:
    """Blumer et al. 1985. A node stands for stretches that end at the same places; node 0 for the empty one.

    Attributes:
        tokens: the text.
        match: how many of its last tokens stood in it before, and the place after them there.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.match = 0, 0
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]  # the node of the longest end of its stretches that is another node's
        self._length = [0]  # of the node's longest stretch
        self._after = [0]  # the place after a late occurrence of it
        self._last = 0

    def append(self, token: int) -> None:
        """One more token of the text."""
        self.tokens.append(token)
        following, link, length, after = self._next, self._link, self._length, self._after
        here = len(self.tokens)
        node = self._add({}, length[self._last] + 1, here)
        p = self._last
        while p >= 0 and token not in following[p]:
            following[p][token] = node
            p = link[p]
        if p < 0:
            link[node] = 0
        elif length[q := following[p][token]] == length[p] + 1:
            link[node] = q
        else:
            clone = self._add(dict(following[q]), length[p] + 1, after[q])
            link[clone] = link[q]
            link[q] = link[node] = clone
            while p >= 0 and following[p].get(token) == q:
                following[p][token] = clone
                p = link[p]
        self._last = node
        longest = link[node]
        self.match = length[longest], after[longest]
        for _ in range(CLIMB):
            if longest <= 0:
                break
            after[longest] = here
            longest = link[longest]

    def _add(self, following: dict[int, int], length: int, after: int) -> int:
        self._next.append(following)
        self._link.append(-1)
        self._length.append(length)
        self._after.append(after)
        return len(self._next) - 1

    def copy(self) -> Self:
        """Another one of the same text."""
        other = type(self)()
        other.tokens, other.match, other._last = list(self.tokens), self.match, self._last
        other._next = [dict(following) for following in self._next]
        other._link, other._length, other._after = list(self._link), list(self._length), list(self._after)
        return other
