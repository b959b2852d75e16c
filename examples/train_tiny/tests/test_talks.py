"""Nouns, passages and talks: the rules that make requests and replies from stories."""

import random
import sys
from pathlib import Path

import pytest

for needed in ("tokenizers", "numpy", "click"):
    pytest.importorskip(needed, reason=f"training needs {needed}: pip install -e examples/train_tiny")
sys.path.insert(0, str(Path(__file__).parents[1]))

from train_tiny.chat import ASSISTANT, LONGEST, TEMPLATE, USER, WORD_WEIGHT, encode_talk  # noqa: E402
from train_tiny.held_out import draw, read_held_out  # noqa: E402
from train_tiny.nouns import CLASS_OF, NOUNS, names, places_of, plural, swap  # noqa: E402
from train_tiny.openings import as_asked, opening_for  # noqa: E402
from train_tiny.passages import LIMIT, ending, is_whole, passage, pieces_of, stands_alone, text_of  # noqa: E402
from train_tiny.talks import Talk, TalkMaker, Turn, people_of, request_for  # noqa: E402
from train_tiny.vocabulary import train_vocabulary  # noqa: E402

SCENES = (
    'Once upon a time there was a king who lived in a castle. "Who will guard my crown?" he asked. Nobody answered.',
    'A fox came to the gate and said, "I will. But what will you give me?" The king gave it an apple.',
    "He went to bed, and the fox sat down before the door.\n\nAt midnight an owl flew in, and with it came two wolves.",
    "When the sun rose, the crown was gone. The king called for Hans, his soldier, and told Hans to find it.",
    "So Hans took a sword and a lamp, and walked through the forest until he met a witch. She laughed at Hans.",
    '"It is at the bottom of the lake," said she.\n\n"Then I must learn to swim," said Hans, and jumped in.',
    "In the end the crown was found, and there was a great feast. They lived happily ever after.",
)


def asked_nouns(request: str) -> frozenset[str]:
    """The nouns that a request names, of which a fairy tale is none."""
    return frozenset(places_of(request.replace("fairy tale", "tale"), NOUNS))


LONG_STORY = "\n\n".join(SCENES[:-1] * 3 + SCENES[-1:])


def test_a_swapped_noun_keeps_number_capitals_and_article() -> None:
    """The text stays English."""
    text = "A Fox met an old fox. The foxes ate; FOX! An fox-skin."
    assert swap(text, "fox", "owl") == "An Owl met an old owl. The owls ate; OWL! An owl-skin."
    assert swap("An owl, two owls", "owl", "wolf") == "A wolf, two wolves"
    assert swap("The mice ran to a mouse", "mouse", "goose") == "The geese ran to a goose"


def test_nouns_are_found_as_whole_words_only() -> None:
    """The king is not in the kingdom."""
    assert names("Two Kings.", "king") and not names("a kingdom", "king")
    assert places_of("a cat and mice", NOUNS) == {"cat": 2, "mouse": 10}
    assert len(NOUNS) == len(CLASS_OF) and len({plural(noun) for noun in NOUNS}) == len(NOUNS)


def test_pieces_hold_speech_together_and_lose_nothing() -> None:
    """A story is its pieces; none ends within a speech."""
    pieces = pieces_of(LONG_STORY)
    assert text_of(pieces) == LONG_STORY
    assert all(piece.text.count('"') % 2 == 0 for piece in pieces)
    assert 'A fox came to the gate and said, "I will. But what will you give me?" The king gave it an apple.' in [
        text_of(pieces[i : i + 2]) for i in range(len(pieces))
    ]


def test_passages_end_properly_within_the_limit() -> None:
    """From every piece on, for every seed."""
    pieces = pieces_of(LONG_STORY)
    for seed in range(30):
        for start in range(len(pieces)):
            stop = passage(pieces, start, random.Random(seed))
            assert stop is None or (is_whole(text_of(pieces[start:stop])) and len(text_of(pieces[start:stop])) <= LIMIT)
    assert passage(pieces, 0, random.Random(0)) is not None
    start = ending(pieces, 400)
    assert start is not None and text_of(pieces[start:]).endswith("happily ever after.")
    assert not any(stands_alone(piece) for piece in pieces if piece.text.startswith(("He ", "So ", '"It ')))


def test_talks_follow_the_seed_and_keep_what_was_asked_for() -> None:
    """The same seed makes the same talks; each named noun stands in the first reply."""
    maker = TalkMaker([LONG_STORY, SCENES[0]], frozenset())
    talks = [talk for seed in range(40) for talk in maker.epoch(seed)]
    assert talks == [talk for seed in range(40) for talk in maker.epoch(seed)]
    assert {len(talk.turns) for talk in talks} >= {1, 2, 3}
    asked = 0
    for talk in talks:
        nouns = asked_nouns(talk.turns[0].request)
        asked += len(nouns)
        assert all(names(talk.turns[0].reply, noun) for noun in nouns)
        assert all(is_whole(turn.reply) for turn in talk.turns)
    assert asked > len(talks)


def test_an_opening_names_what_was_asked_for() -> None:
    """Whatever the nouns and however they are ordered, once each, as a whole sentence."""
    pick = random.Random(0)
    for _ in range(3000):
        nouns = pick.sample(NOUNS, pick.choice((1, 2, 3)))
        text = opening_for(nouns, request_for(nouns, True, pick), pick)
        assert is_whole(text) and all(names(text, noun) for noun in nouns), text
    assert as_asked("fox", "the fox and the owl") == "the fox" and as_asked("fox", "Foxes, please.") == "foxes"
    assert opening_for(["fox", "owl"], "The Fox and the Owl", pick) == "This is the tale of the fox and the owl."


def test_no_talk_names_a_held_out_pair() -> None:
    """What measures the model is not what it learns."""
    maker = TalkMaker([LONG_STORY], frozenset())
    pairs = {asked_nouns(t.turns[0].request) for seed in range(60) for t in maker.epoch(seed)}
    held_out = frozenset(pair for pair in sorted(pairs, key=sorted)[::2] if len(pair) == 2)
    assert held_out
    strict = TalkMaker([LONG_STORY], held_out)
    for seed in range(60):
        for talk in strict.epoch(seed):
            nouns = asked_nouns(talk.turns[0].request)
            assert not any(pair <= nouns for pair in held_out)


def test_people_are_names_said_twice() -> None:
    """Neither the first word of a sentence nor a noun with a capital."""
    assert people_of("Then the King met Hans, and Hans and King Grete laughed. Grete wept.") == ["Hans"]


def test_the_held_out_requests_are_those_of_the_seed() -> None:
    """The file was not touched since it was drawn."""
    stored = read_held_out(Path(__file__).parents[1] / "held_out_requests.tsv")
    assert stored == draw(100, 12)
    assert len({item.nouns for item in stored}) == 100 and all(len(item.nouns) == 2 for item in stored)
    assert all(asked_nouns(item.request) == item.nouns for item in stored)


TALK = Talk((Turn("A story about a king.", SCENES[0]), Turn("Go on.", SCENES[1])), ("king",))


def test_only_replies_count_and_their_words_count_more() -> None:
    """Weights are 0 for what is read, 1 for what is said, more for the word that was asked for."""
    vocabulary = train_vocabulary([LONG_STORY], 400).with_control([USER, ASSISTANT])
    encoded = encode_talk(TALK, vocabulary)
    assert encoded is not None
    ids, weights = encoded
    said = [int(i) for i, weight in zip(ids, weights, strict=True) if weight]
    assert vocabulary.tokenizer.decode(said, skip_special_tokens=False) == f"{SCENES[0]}<|end|>{SCENES[1]}<|end|>"
    heavy = [int(i) for i, weight in zip(ids, weights, strict=True) if weight == WORD_WEIGHT]
    assert vocabulary.decode(heavy).split() == ["a", "king", "The", "king"]
    long = Talk((Turn("Go on.", "word " * (2 * LONGEST)),), ())
    assert encode_talk(long, vocabulary) is None


def test_the_template_writes_what_the_model_learnt() -> None:
    """Rendered messages, tokenised, are the ids of the talk; the system's words come before the first request."""
    jinja2 = pytest.importorskip("jinja2", reason="the template is rendered with jinja2")
    vocabulary = train_vocabulary([LONG_STORY], 400).with_control([USER, ASSISTANT])
    template = jinja2.Environment().from_string(TEMPLATE)
    messages = []
    for turn in TALK.turns:
        messages += [{"role": "user", "content": turn.request}, {"role": "assistant", "content": turn.reply}]
    rendered = template.render(messages=messages, bos_token="<|story|>")
    encoded = encode_talk(TALK, vocabulary)
    assert encoded is not None and vocabulary.tokenizer.encode(rendered).ids == encoded[0].tolist()
    system = [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": " Hi"}]
    assert template.render(messages=system, bos_token="<|story|>", add_generation_prompt=True) == (
        "<|story|><|user|>Be brief.\n\nHi<|assistant|>"
    )
