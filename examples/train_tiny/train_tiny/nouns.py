"""The nouns that requests name: plain words of fairy tales, in classes whose members can stand for each other."""

import re
from collections.abc import Iterable
from functools import cache

CLASSES = {
    "men": "king prince emperor sultan knight soldier giant dwarf ogre troll wizard magician hermit priest merchant "
    "miller tailor shoemaker smith cook gardener farmer peasant shepherd fisherman huntsman captain sailor thief "
    "robber beggar boy",
    "women": "queen princess fairy witch girl maiden bride widow nurse stepmother grandmother",
    "animals": "fox wolf bear lion tiger monkey elephant stag horse donkey cow bull goat sheep lamb pig dog cat mouse "
    "rat hare rabbit hedgehog hen cock goose duck eagle raven crow owl dove sparrow swallow nightingale frog snake "
    "dragon tortoise crab fish bee",
    "things": "ring sword crown apple egg key mirror basket box bag axe knife stick letter book bell shoe cloak coat "
    "cap purse cup bottle lamp candle feather needle flower stone rope cake pot treasure ball chest cart drum "
    "whistle hat spindle",
    "places": "forest castle palace mill river sea lake pond garden field meadow mountain hill cave tower church "
    "bridge island inn village town kitchen cottage hut boat ship tree rock",
}
CLASS_OF = {noun: name for name, nouns in CLASSES.items() for noun in nouns.split()}
NOUNS = tuple(CLASS_OF)
ALSO_VERBS = {"bear", "book", "cook", "drum", "duck", "fish", "nurse", "ring", "rock", "stick", "swallow", "whistle"}

IRREGULAR = {
    "dwarf": "dwarfs",
    "fisherman": "fishermen",
    "huntsman": "huntsmen",
    "thief": "thieves",
    "wolf": "wolves",
    "mouse": "mice",
    "goose": "geese",
    "sheep": "sheep",
    "fish": "fish",
    "knife": "knives",
}


def plural(noun: str) -> str:
    """More than one of a noun of the list."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def article(noun: str) -> str:
    """The noun with the article that its sound asks for: a fox, an owl."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def pattern(noun: str) -> re.Pattern[str]:
    """Matches a noun as a whole word, one or more of it, in any case."""
    return re.compile(rf"\b({noun}|{plural(noun)})\b", re.IGNORECASE)


def names(text: str, noun: str) -> bool:
    """Whether a text has the noun."""
    return pattern(noun).search(text) is not None


def places_of(text: str, nouns: Iterable[str]) -> dict[str, int]:
    """Where each of the nouns first stands in the text, as a character offset; those that do not occur are left out."""
    words = {match.group().lower(): match.start() for match in reversed(list(re.finditer(r"[A-Za-z]+", text)))}
    found = {noun: [words[form] for form in (noun, plural(noun)) if form in words] for noun in nouns}
    return {noun: min(starts) for noun, starts in found.items() if starts}


def swap(text: str, old: str, new: str) -> str:
    """The text with one noun put for another everywhere, in number, capitals and article."""

    def put(match: re.Match[str]) -> str:
        word = match.group()
        fitting = new if word.lower() == old else plural(new)
        if word.isupper():
            return fitting.upper()
        return fitting.capitalize() if word[0].isupper() else fitting

    text = pattern(old).sub(put, text)
    return re.sub(rf"\b([Aa])n?(?= {new}\b)", r"\1n" if new[0] in "aeiou" else r"\1", text, flags=re.IGNORECASE)
