"""Openings: a first sentence, made by rules, that brings in what a request asked for.

The first sentence of a passage seldom names two nouns that somebody would ask for. It is put aside for one of these;
the rest of the passage goes on from there.
"""

import random

from train_tiny.nouns import CLASS_OF, article

ONE_BEING = (
    "Once upon a time there was {a}.",
    "There was once {a}.",
    "Once upon a time there lived {a}.",
    "Long ago there lived {a}, of whom many tales are told.",
    "There once lived {a} who wished to see the world.",
)
ONE_THING = (
    "Once upon a time there was {a}, and nobody knew whose it was.",
    "There was once a poor man who had nothing but {a}.",
    "There was once {a} that had been forgotten.",
    "Once upon a time an old woman found {a}.",
)
ONE_PLACE = (
    "Once upon a time there was {a}, far away from here.",
    "There was once {a} to which nobody went.",
    "Long ago some people lived near {a}.",
)
TWO_BEINGS = (
    "Once upon a time there were {a} and {b} who lived together.",
    "There was once {a} who had {b} for a friend.",
    "Once upon a time there was {a} who met {b}.",
    "One day {a} met {b}.",
    "{A} and {b} were once good friends.",
    "Long ago there lived {a}, and not far away lived {b}.",
)
BEING_THING = (
    "Once upon a time there was {a} who had {b}.",
    "There was once {a} who owned {b}, and nothing else in the world.",
    "One day {a} found {b}.",
    "There once lived {a} who wished for {b} above all things.",
    "Once upon a time there lived {a} who lost {b}.",
)
BEING_PLACE = (
    "Once upon a time there was {a} who lived near {b}.",
    "There was once {a} who came to {b}.",
    "One day {a} went to {b}.",
    "Long ago there lived {a}, close to {b}.",
    "{A} once set out to find {b}.",
)
THING_PLACE = (
    "Once upon a time there was {a} that lay near {b}.",
    "There was once {a}, and it had been hidden near {b}.",
    "Long ago a man lost {a} on his way to {b}.",
)
TWO_THINGS = (
    "Once upon a time there was a man who had {a} and {b}.",
    "There was once {a}, and beside it lay {b}.",
    "Long ago a poor woman had nothing but {a} and {b}.",
)
TWO_PLACES = (
    "Once upon a time there was {a}, and behind it was {b}.",
    "Between {a} and {b} there once lived a poor man.",
    "Long ago the way to {a} led past {b}.",
)
KIND = {"things": 1, "places": 2}  # beings are 0
FOR_ONE = (ONE_BEING, ONE_THING, ONE_PLACE)
FOR_TWO = {
    (0, 0): TWO_BEINGS,
    (0, 1): BEING_THING,
    (0, 2): BEING_PLACE,
    (1, 1): TWO_THINGS,
    (1, 2): THING_PLACE,
    (2, 2): TWO_PLACES,
}


def kind(noun: str) -> int:
    """0 for a being, 1 for a thing, 2 for a place."""
    return KIND.get(CLASS_OF[noun], 0)


def opening_for(nouns: list[str], pick: random.Random) -> str:
    """A first sentence that names one or two nouns, or two and then the third."""
    first = sorted(nouns[:2], key=kind)  # the sort is stable: two of a kind stay as they were asked for
    forms = FOR_ONE[kind(first[0])] if len(first) == 1 else FOR_TWO[kind(first[0]), kind(first[1])]
    words = [article(noun) for noun in first]
    made = pick.choice(forms).format(a=words[0], A=words[0].capitalize(), b=words[-1])
    return made if len(nouns) < 3 else f"{made} There was also {article(nouns[2])}."
