"""Openings: a first sentence, made by rules, that brings in what a request asked for.

The first sentence of a passage seldom names two nouns that somebody would ask for. It is put aside for one of these;
the rest of the passage goes on from there. The forms keep the order and the articles of the request, which is what a
small model learns to copy.
"""

import random

from train_tiny.nouns import article

ONE = ("Once upon a time there was {}.", "This is the tale of {}.", "There was once {}.")
MORE = ("Once upon a time there was {}.", "This is the tale of {}.")


def joined(parts: list[str]) -> str:
    """`a fox`, `a fox and a ring`, `a fox, a ring and an owl`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def opening_for(nouns: list[str], pick: random.Random) -> str:
    """A first sentence that names the nouns."""
    return pick.choice(ONE if len(nouns) == 1 else MORE).format(joined([article(noun) for noun in nouns]))
