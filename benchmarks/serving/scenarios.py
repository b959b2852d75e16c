"""What clients ask: prompts as token ids, so that both servers read the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

WORDS = """
the a of and to in is was it for on are as with his they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my
made over did down only way find use may water long little very after words called just where most know river
house morning
"""


@dataclass(frozen=True)
class Scenario:
    """A kind of client.

    Attributes:
        about: one line.
        shared: tokens at the beginning that all clients have in common.
        own: tokens that a client adds, in its first request and in every further one.
        turns: requests of a client, each of which begins with the one before.
        reply: tokens of each reply.
        start: clients a second to begin with.
    """

    about: str
    shared: int
    own: int
    turns: int = 1
    reply: int = 64
    start: float = 1.0

    @property
    def longest(self) -> int:
        """Tokens of the longest request with its reply."""
        return self.shared + self.turns * self.own + self.reply


SCENARIOS = {
    "shared": Scenario("2,000 tokens that all share, and 100 of one's own", 2000, 100),
    "growing": Scenario("an agent: 3,000 tokens that grow to 7,000 in nine requests", 2500, 500, turns=9, start=0.1),
    "short": Scenario("1,000 tokens that all share, and 50 of one's own", 1000, 50),
}


class Prompts:
    """Texts of a fixed number of tokens, the same for the same seed.

    Args:
        ids: ids that stand for words.
    """

    def __init__(self, ids: list[int], begin: list[int]) -> None:
        self._ids, self._begin = ids, begin

    def text(self, seed: str, n: int) -> list[int]:
        """``n`` ids."""
        return random.Random(seed).choices(self._ids, k=n)

    def client(self, scenario: Scenario, seed: str) -> Iterator[list[int]]:
        """The prompts of one client, in order."""
        ids = [*self._begin, *self.text("what all share", scenario.shared - len(self._begin))]
        for turn in range(scenario.turns):
            ids = [*ids, *self.text(f"{seed} {turn}", scenario.own)]
            yield ids
