"""Openings: a first sentence, made by rules, that brings in what a request asked for.

The first sentence of a passage seldom names two nouns that somebody would ask for. It is put aside for one of these;
the rest of the passage goes on from there. The forms keep the order and the words of the request, which is what a
small model learns to copy.
"""

import random

from train_tiny.nouns import article, plural

WITH_ARTICLES = ("Once upon a time there was {}.", "This is the tale of {}.")
ANY = ("This is the tale of {}.",)


def joined(parts: list[str]) -> str:
    """`a fox`, `a fox and a ring`, `a fox, a ring and an owl`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def as_asked(noun: str, request: str) -> str:
    """The noun as a request has it: `a fox`, `foxes` or `the fox`."""
    words = f" {request.lower()}".replace(".", " ").replace(",", " ").replace("?", " ") + " "
    forms = (article(noun), f"the {noun}", plural(noun))
    return next((form for form in forms if f" {form} " in words), article(noun))


def opening_for(nouns: list[str], request: str, pick: random.Random) -> str:
    """A first sentence that names the nouns of a request, in its words."""
    parts = [as_asked(noun, request) for noun in nouns]
    forms = WITH_ARTICLES if parts == [article(noun) for noun in nouns] else ANY
    return pick.choice(forms).format(joined(parts))
