"""Passages: parts of a story that begin and end properly, cut by rules. Lengths are in characters."""

import random
import re
from dataclasses import dataclass

SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["']))\s+(?=["'A-Z])""")
LEANING = {"He", "She", "It", "They", "His", "Her", "Their", "This", "These", "But", "And", "So", "Then", "For", "Or"}
HAPPY = re.compile(r"\b(happ\w+|joy\w*|rejoic\w+|marri\w+|wedding|glad\w*|peace\w*|feast\w*|content\w*)\b")
SHORT, LONG, LIMIT = 220, 480, 700  # of a passage; the limit is about 180 tokens of the built-in vocabulary


@dataclass(frozen=True)
class Piece:
    """A sentence, or several that one speech holds together."""

    text: str
    opens: bool  # it begins a paragraph
    closes: bool  # it ends one


def pieces_of(story: str) -> list[Piece]:
    """Cut a story where a sentence ends and no speech is open."""
    pieces = []
    for paragraph in filter(None, (part.strip() for part in story.split("\n\n"))):
        ends = [match.span() for match in SENTENCE_END.finditer(paragraph)]
        ends = [(stop, start) for stop, start in ends if paragraph.count('"', 0, stop) % 2 == 0]
        starts, stops = [0, *(start for _, start in ends)], [*(stop for stop, _ in ends), len(paragraph)]
        for start, stop in zip(starts, stops, strict=True):
            pieces.append(Piece(paragraph[start:stop], start == 0, stop == len(paragraph)))
    return pieces


def text_of(pieces: list[Piece]) -> str:
    """Pieces as text again."""
    return "".join(piece.text + ("\n\n" if piece.closes else " ") for piece in pieces).strip()


def is_whole(text: str) -> bool:
    """Whether a text ends as a sentence does, with all its speech closed."""
    return text.count('"') % 2 == 0 and text.endswith((".", "!", "?", '."', '!"', '?"'))


def passage(pieces: list[Piece], start: int, pick: random.Random) -> int | None:
    """Where a passage from piece `start` on should stop: after a paragraph if one ends in time. None: it cannot."""
    wanted, stops, length = pick.uniform(SHORT, LONG), [], 0
    for stop in range(start + 1, len(pieces) + 1):
        length += len(pieces[stop - 1].text) + 2
        if length > LIMIT:
            break
        if length >= wanted and is_whole(text_of(pieces[start:stop])):
            stops.append(stop)
    return next((stop for stop in stops if pieces[stop - 1].closes), stops[0] if stops else None)


def stands_alone(piece: Piece) -> bool:
    """Whether a piece can be the first of a text: it begins a paragraph, no speech, and leans on nothing before it."""
    return piece.opens and piece.text[0].isupper() and re.split(r"\W", piece.text, maxsplit=1)[0] not in LEANING


def ending(pieces: list[Piece], room: int) -> int | None:
    """The piece at which an ending of at most `room` characters begins, the longest that does not lean. None: none."""
    best, length = None, 0
    for start in range(len(pieces) - 1, 0, -1):
        length += len(pieces[start].text) + 2
        if length > room:
            break
        leans = re.split(r"\W", pieces[start].text, maxsplit=1)[0] in LEANING - {"So", "Then", "And", "But"}
        if length > 120 and not leans and is_whole(text_of(pieces[start:])):
            best = start
    return best
