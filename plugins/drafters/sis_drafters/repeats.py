"""Where the end of a text stood in it before.

A suffix tree (Oliaro et al. 2024) would answer in steps that do not grow with the text, but every token would have to
go through Python into it, guessed or not: microseconds each, and hundreds of bytes. numpy looks through 10,000 tokens
in the time of a few such insertions, and only when a guess is wanted.
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import I32

WINDOW = 16  # tokens of the end that are compared: what agrees for longer is as good
PLACES = 256  # of the last token that are looked at, the latest
_BACK = np.arange(1, WINDOW + 1)


def latest_repeat(tokens: I32) -> tuple[int, int]:
    """How many of the last ``tokens``, at most `WINDOW`, stood in them before, and the place after the latest time.

    ``tokens`` begin with `WINDOW` numbers that are no tokens. (0, 0) where even the last one is new.
    """
    ends = np.flatnonzero(tokens[WINDOW:-1] == tokens[-1])[-PLACES:] + (WINDOW + 1)
    if not len(ends):
        return 0, 0
    same = tokens[ends[:, None] - _BACK] == tokens[: -WINDOW - 1 : -1]
    lengths = np.where(same.all(axis=1), WINDOW, same.argmin(axis=1))
    longest = int(lengths.max())
    return longest, int(ends[np.flatnonzero(lengths == longest)[-1]])
