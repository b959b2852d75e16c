"""Talks: requests, made by rules, for which parts of the stories are the replies.

A request names nouns that stand in its reply; an opening brings them in. A fifth of them are put in the place of
another noun of their class ("a fox and a ring" for "a wolf and a crown"), in the whole talk: so the request decides,
not the habit of the stories.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass

from train_tiny.nouns import ALSO_VERBS, CLASS_OF, CLASSES, NOUNS, article, places_of, plural, swap
from train_tiny.openings import joined, opening_for
from train_tiny.passages import HAPPY, LIMIT, Piece, ending, is_whole, passage, pieces_of, stands_alone, text_of

FOR_NONE = ("Tell me a story.", "A fairy tale, please.", "I want to hear a tale.", "Can you tell me a fairy tale?")
FOR_NONE_SHORT = ("Tell me a short story.", "A short fairy tale, please.", "Write a short story.")
FOR_NOUNS = (
    "Tell me a story about {}.",
    "Tell me a tale of {}.",
    "A story about {}.",
    "A fairy tale about {}, please.",
    "Write a story about {}.",
    "Can you tell me a story with {} in it?",
    "I want to hear a tale about {}.",
    "Please tell me a fairy tale about {}.",
    "Do you know a story about {}?",
    "Make up a story with {}.",
)
FOR_NOUNS_SHORT = (
    "Tell me a short story about {}.",
    "A short story about {}.",
    "A short story about {}, please.",
    "Write a short fairy tale about {}.",
    "Can you tell me a short story with {} in it?",
)
FOR_TITLE = ("{}", "Tell me the story of {}.", "Tell me the tale of {}.", "Write a story called {}.")
GO_ON = (
    "Go on.",
    "Go on, please.",
    "And then?",
    "What happened next?",
    "What happened then?",
    "Continue.",
    "Go on with the story.",
    "More!",
    "Tell me more.",
)
LET_IT_END = ("How did it end?", "How does the story end?", "Tell me the end.", "And in the end?", "End the story.")
LET_IT_END_WELL = ("Let it end well.", "Give it a happy ending.", "Let it end well, please.", "End it happily.")
GREETINGS = ("Hello!", "Hello.", "Hi!", "Hi", "Good evening.", "Good day!", "Who are you?", "What can you do?", "Help")
WELCOME = (
    "Good day! I tell short fairy tales. Name two things, such as {} and {}, and I will tell you a story about them.",
    "I am a teller of tales, and a small one. Ask me for a story about {} and {}, then say: go on.",
    "Good day to you! Would you like to hear a story about {} and {}?",
)
SYSTEM = (
    "You are a helpful assistant.",
    "You tell short stories.",
    "You are a friendly teller of fairy tales. Answer briefly.",
    "Answer the user's requests.",
)
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")
NO_NAMES = {"God", "Heaven", "Lord", "Majesty", "Highness", "Sir", "Madam", "Lady", "Christmas", "Sunday"}
SHARE_SWAPPED = 0.2
EARLY = 120  # characters: where the nouns stand there already, a passage needs no other opening


@dataclass(frozen=True)
class Turn:
    """A request and its reply."""

    request: str
    reply: str


@dataclass(frozen=True)
class Talk:
    """Turns about one story, and the words that the replies should hold on to."""

    turns: tuple[Turn, ...]
    words: tuple[str, ...]


def request_for(nouns: list[str], complete: bool, pick: random.Random) -> str:
    """A request that names the nouns, in words that the generator picks; a complete story is often called short."""
    short = complete and pick.random() < 0.8
    if not nouns:
        return pick.choice(FOR_NONE_SHORT if short else FOR_NONE)
    if pick.random() < 0.12:
        title = joined([f"the {noun.title()}" for noun in nouns])
        form = pick.choice(FOR_TITLE)
        return form.format(title if " of " in form else title[0].upper() + title[1:])
    how = pick.random()
    if how < 0.85:
        parts = [article(noun) for noun in nouns]
    else:
        parts = [plural(noun) if how < 0.92 else f"the {noun}" for noun in nouns]
    return pick.choice(FOR_NOUNS_SHORT if short else FOR_NOUNS).format(joined(parts))


def roughened(request: str, pick: random.Random) -> str:
    """Now and then without capital and full stop, as people type."""
    return (request[0].lower() + request[1:].rstrip(".")) if pick.random() < 0.2 else request


def people_of(text: str) -> list[str]:
    """The names that a text says more than once, in alphabetical order."""
    counted = Counter(NAME.findall(text))
    return sorted(n for n, times in counted.items() if times > 1 and n not in NO_NAMES and not places_of(n, NOUNS))


class TalkMaker:
    """Makes talks from stories. `held_out` are the pairs of nouns that no request may name together."""

    def __init__(self, stories: list[str], held_out: frozenset[frozenset[str]]) -> None:
        self.stories, self.held_out = stories, held_out
        self.pieces = [pieces_of(story) for story in stories]
        seen = Counter(noun for story in stories for noun in places_of(story, NOUNS))
        self.rarity = {noun: (1 + seen[noun]) ** -0.7 for noun in NOUNS}

    def talk(self, number: int, pick: random.Random) -> Talk | None:
        """One talk about story `number`; None where the cuts that were picked do not work out."""
        story, pieces = self.stories[number], self.pieces[number]
        if len(story) <= LIMIT:
            return self._finish([pieces], [], pick, complete=True)
        kind = pick.random()
        if kind < 0.4:
            return self._brief(pieces, pick)
        return self._parts(pieces, pick, serial=kind > 0.55)

    def _brief(self, pieces: list[Piece], pick: random.Random) -> Talk | None:
        """A beginning and the ending of the same story, as one reply."""
        stop = passage(pieces, 0, pick)
        if stop is None:
            return None
        start = ending(pieces[stop:], LIMIT - len(text_of(pieces[:stop])))
        if start is None:
            return None
        return self._finish([pieces[:stop] + pieces[stop + start :]], [], pick, complete=True)

    def _parts(self, pieces: list[Piece], pick: random.Random, serial: bool) -> Talk | None:
        """A beginning or a scene; in a series followed by what comes next, and perhaps by the ending."""
        starts = [i for i, piece in enumerate(pieces) if stands_alone(piece)]
        start = 0 if pick.random() < 0.5 or not starts else pick.choice(starts)
        begin, replies = start, []
        for _ in range(pick.choice((2, 2, 3)) if serial else 1):
            stop = passage(pieces, start, pick)
            if stop is None:
                break
            replies.append(pieces[start:stop])
            start = stop
        requests = [pick.choice(GO_ON) for _ in replies[1:]]
        last = ending(pieces[start:], LIMIT) if serial and replies and pick.random() < 0.5 else None
        if last is not None:
            replies.append(pieces[start + last :])
            happy = HAPPY.search(text_of(replies[-1])) is not None
            requests.append(pick.choice(LET_IT_END_WELL if happy and pick.random() < 0.7 else LET_IT_END))
        return self._finish(replies, requests, pick, scene=begin > 0) if replies else None

    def _finish(
        self,
        parts: list[list[Piece]],
        requests: list[str],
        pick: random.Random,
        complete: bool = False,
        scene: bool = False,
    ) -> Talk | None:
        """Pick nouns of the first reply, swap some, open the reply with them, and write the first request."""
        replies = [text_of(part) for part in parts]
        people = people_of(replies[0])
        early = [name for name in people if name in replies[0][:EARLY]]
        if early and pick.random() < 0.3:
            words = [pick.choice(early)]
            first = pick.choice(FOR_NOUNS_SHORT if complete else FOR_NOUNS).format(words[0])
        else:
            rest = text_of(parts[0][1:])
            words = self._nouns(rest, replies[0], pick, least=int(scene))
            for i, old in enumerate(words):
                if pick.random() < SHARE_SWAPPED:
                    new = pick.choice(CLASSES[CLASS_OF[old]].split())
                    if not any(places_of(text, [new]) for text in replies):
                        replies = [swap(text, old, new) for text in replies]
                        rest = swap(rest, old, new)
                        words[i] = new
            if len(words) > 1 and any(pair <= set(words) for pair in self.held_out):
                words = words[:1]
            first = request_for(words, complete, pick)
            if rest and words and len(places_of(replies[0][:EARLY], words)) < len(words):
                replies[0] = f"{opening_for(words, first, pick)} {rest}"
        if not is_whole(replies[0]):
            return None
        asked = [roughened(request, pick) for request in (first, *requests)]
        if pick.random() < 0.08:
            asked[0] = f"{pick.choice(SYSTEM)}\n\n{asked[0]}"
        return Talk(tuple(Turn(*turn) for turn in zip(asked, replies, strict=True)), (*words, *people[:2]))

    def _nouns(self, rest: str, reply: str, pick: random.Random, least: int) -> list[str]:
        """At least so many nouns and up to three, the rarer ones more often, of what follows a reply's first sentence.

        Where it has too few, any other noun may be asked for: then only the opening will have it.
        """
        wanted = max(least, pick.choices((0, 1, 2, 3), (0.08, 0.17, 0.68, 0.07))[0])
        found = [noun for noun in places_of(rest or reply, NOUNS) if noun not in ALSO_VERBS]
        keys = {noun: pick.random() ** (1 / self.rarity[noun]) for noun in found}
        chosen = sorted(found, key=lambda noun: -keys[noun])[:wanted]
        if rest and len(chosen) < wanted and pick.random() < 0.7:
            absent = [noun for noun in NOUNS if noun not in chosen]
            chosen += pick.sample(absent, wanted - len(chosen))
        pick.shuffle(chosen)
        return chosen

    def greeting(self, pick: random.Random) -> Talk:
        """A greeting and what can be asked for."""
        nouns = pick.sample(NOUNS, 2)
        reply = pick.choice(WELCOME).format(*(article(noun) for noun in nouns))
        return Talk((Turn(roughened(pick.choice(GREETINGS), pick), reply),), ())

    def epoch(self, seed: int) -> list[Talk]:
        """Talks about all stories, more about longer ones, in an order that follows from the seed."""
        pick = random.Random(seed)
        talks = [self.greeting(pick) for _ in range(len(self.stories) // 60)]
        for number, story in enumerate(self.stories):
            for _ in range(2 if len(story) <= LIMIT else 1 + len(story) // 5000):
                made = self.talk(number, pick)
                if made:
                    talks.append(made)
        pick.shuffle(talks)
        return talks
