"""Who has read what: so that requests with a shared beginning meet where it was read before."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

BLOCK = 256  # bytes of a beginning that are looked for together
MOST_BLOCKS = 1024  # of one request
MOST_KNOWN = 1 << 16  # blocks that are remembered of one place: the oldest are forgotten
SLACK = 4  # requests more that a place may have than the one with the fewest, and still be chosen for what it has read

FIELDS = ("tools", "system", "instructions", "messages", "input", "prompt")
"""Of a request's body, what its prompt is made of, in the order in which templates write it."""


def blocks(body: Any, salt: str) -> list[bytes]:
    """Digests of ever longer beginnings of what a request's prompt is made of; two keys have none in common."""
    if not isinstance(body, dict):
        return []
    data = b"".join(_parts(body))
    digest, found = hashlib.blake2b(salt.encode(), digest_size=16), []
    for start in range(0, min(len(data) - BLOCK + 1, BLOCK * MOST_BLOCKS), BLOCK):
        digest.update(data[start : start + BLOCK])
        found.append(digest.digest())
    return found


def _parts(body: dict[str, Any]) -> Iterator[bytes]:
    for name in FIELDS:
        value = body.get(name)
        for each in value if isinstance(value, list) else () if value is None else (value,):
            yield json.dumps(each).encode()


class Beginnings:
    """What several places have read. Used from one thread."""

    def __init__(self, n: int) -> None:
        self._known: list[OrderedDict[bytes, None]] = [OrderedDict() for _ in range(n)]

    def choose(self, found: Sequence[bytes], loads: dict[int, int]) -> int:
        """The place that has read most of a beginning; where several have, or it has too much to do, the least busy.

        Args:
            loads: requests under way, of the places that may be chosen.
        """
        least = min(loads.values())
        known = {place: self._n_known(place, found) for place in loads}
        able = [place for place, load in loads.items() if load <= least + SLACK]
        return min(able, key=lambda place: (-known[place], loads[place], place))

    def _n_known(self, place: int, found: Sequence[bytes]) -> int:
        return next((i for i, block in enumerate(found) if block not in self._known[place]), len(found))

    def note(self, place: int, found: Sequence[bytes]) -> None:
        """A place reads this beginning."""
        known = self._known[place]
        for block in reversed(found):  # the first of a beginning is forgotten last
            known[block] = None
            known.move_to_end(block)
        while len(known) > MOST_KNOWN:
            known.popitem(last=False)

    def forget(self, place: int) -> None:
        """A place has lost what it read."""
        self._known[place].clear()
