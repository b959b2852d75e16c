"""What guessing may cost: a small share of the time of all steps, and what it has saved before.

So a text that never repeats itself loses no more than that share, whatever the model, the machine and the drafters: on
a large model guesses are asked for at every step, on one of microseconds a step every few dozen.
"""

from __future__ import annotations

SHARE = 0.005  # of the time of steps
SAVED = 16  # steps' worth of time that a text may have saved up


class Allowance:
    """A clock that runs `SHARE` as fast as a text is written; who has spent something waits until it has come so far.

    That is a leaky bucket for each text (the generic cell rate algorithm of ITU-T I.371), kept as a single number.

    Attributes:
        now: what a text has been allowed to spend, in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def step(self, seconds: float, n_texts: int) -> None:
        """A step took so long, of which each text has its part."""
        self.now += SHARE * seconds / n_texts

    def due(self, due: float, spent: float, step: float) -> float:
        """When a text may spend again that was free to at ``due`` and spends so much, or saves it where that is
        negative; a step takes ``step`` seconds."""
        return max(due, self.now - SAVED * step) + spent
