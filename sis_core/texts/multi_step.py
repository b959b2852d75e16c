"""How many greedy tokens a fast model is asked for at once.

What Python does after each step, with its code swept out of the processor's cache by the weights, is a tenth of the
time of a small model's token. Several at once share it (multi-step scheduling, as servers have it for accelerators).
"""

from __future__ import annotations

import math

PAUSE = 1 / 30  # seconds without a word: a text still seems to flow; so long wait Ctrl-C and other texts
DOUBLINGS = 5  # as far as a page of the cache


class MultiStepSize:
    """Learns what a token costs.

    Drafters look at a text between steps, and see later that it begins to repeat itself where these give several: so
    after something was guessed a step gives one, and twice as many each time that nothing is.
    """

    def __init__(self) -> None:
        self._seconds = math.inf  # of a token, as it was lately
        self._doublings = DOUBLINGS

    def n(self) -> int:
        """Tokens to ask for beside the one of the next step, for which nothing is guessed."""
        self._doublings = min(self._doublings + 1, DOUBLINGS)
        return max(0, min(int(PAUSE / self._seconds), 1 << self._doublings) - 1)

    def guessed(self) -> None:
        """Something is guessed for the next step."""
        self._doublings = 0

    def measure(self, n: int, seconds: float) -> None:
        """A step that gave ``n`` tokens took so long."""
        if seconds > 0:
            self._seconds = seconds / n
