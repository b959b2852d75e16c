"""The drafters of the plugin: the kit's check, and what each guesses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_drafters
from sis_drafters.copying import copied
from sis_drafters.draft_model import DraftModel
from sis_drafters.lookup import Lookup
from sis_drafters.repeats import PLACES, WINDOW, latest_repeat
from sis_drafters.suffix import Suffix
from tiny_models import N_VOCAB, metadata, write_model

import sis_core
from sis_core.drafter import DraftContext, Drafter
from sis_core.errors import SisError
from sis_core.registry import Registry
from sis_core.testing import check_drafter
from sis_core.texts.drafting import make_drafting


@pytest.mark.parametrize(
    ("drafter", "fields"),
    [(Lookup, {}), (Lookup, {"most": 1, "shortest": 1}), (Suffix, {}), (Suffix, {"past": 3}), (Suffix, {"past": 0})],
    ids=str,
)
def test_the_kit(drafter: type[Drafter], fields: dict[str, Any]) -> None:
    check_drafter(drafter, **fields)


def test_they_are_registered() -> None:
    registry = Registry.of(sis_drafters)
    assert sorted(registry.names("drafters")) == ["draft-model", "lookup", "suffix"]


def guess(drafter: Drafter, text: str, k: int = 16, past: Sequence[str] = ()) -> str:
    context = DraftContext(256, list(text.encode()), None, [list(t.encode()) for t in past])
    return bytes(drafter.start(context).propose(k)).decode()


@pytest.mark.parametrize("drafter", [Lookup(), Suffix()], ids=["lookup", "suffix"])
def test_what_followed_before_is_guessed(drafter: Drafter) -> None:
    assert guess(drafter, "the cat sat on the mat; the c", 5) == "at sa"
    assert guess(drafter, "abcabcabc", 7) == "abcabca"
    assert guess(drafter, "qwertyuiop") == ""
    assert guess(drafter, "one cat, two dogs; one cow, one c", 2) == "ow"  # the latest place


def test_the_longest_end_decides() -> None:
    """The latest place of the short end says something else."""
    text = "the keeper of hens wept; another keeper of bees slept; the keeper of hens"
    assert guess(Suffix(), text, 5) == " wept"


def test_past_texts_are_remembered() -> None:
    past = ["a lighthouse by the sea", "a windmill"]
    assert guess(Suffix(), "the lighthouse", 7, past) == " by the"
    assert guess(Suffix(past=12), "the lighthouse", 7, past) == ""
    assert guess(Suffix(), "a windmill", 7, past) == ""  # nothing follows across texts


def test_a_copy_that_runs_into_its_own_end() -> None:
    assert copied([1, 2, 3, 1, 2], 3, 5) == [1, 2, 1, 2, 1]
    assert copied([1, 2], 2, 5) == []


def test_the_latest_of_the_longest_ends_that_stood_before_is_found() -> None:
    chance = random.Random(1)
    for n_tokens in (2, 3, 20):
        text = [chance.randrange(n_tokens) for _ in range(150)]
        for n in range(1, len(text) + 1):
            ends = [(common_end(text[:n], text[:after]), after) for after in range(1, n)]
            length, after = max(ends, default=(0, 0))
            found = latest_repeat(np.array([-1] * WINDOW + text[:n], np.int32))
            assert found == ((length, after + WINDOW) if length else (0, 0))


def common_end(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many of the last tokens are the same, at most as many as are looked at."""
    pairs = enumerate(zip(tokens[::-1], others[::-1], strict=False))
    return min(WINDOW, next((i for i, (a, b) in pairs if a != b), len(others)))


def test_a_token_that_stands_everywhere_is_looked_for_in_its_latest_places() -> None:
    text = [-1] * WINDOW + [5, 8, 7] + [9, 7] * PLACES + [5, 8, 7]
    assert latest_repeat(np.array(text, np.int32)) == (1, len(text) - 3)


def test_options_are_held_to_their_rules() -> None:
    with pytest.raises(SisError, match="most is 0, but must be a whole number from 1 to 64"):
        Suffix(most=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "random.gguf")


def test_a_draft_model_guesses_what_it_would_write(file: Path) -> None:
    with sis_core.load(file, backend="numpy") as model:
        drafter = DraftModel(model=str(file))
        tokens = model.tokenize("Once")
        state = drafter.start(DraftContext(N_VOCAB, tokens, model.tokenizer))
        wanted = [piece.token for piece in model.generate(tokens, sampler="greedy", max_tokens=4, ignore_end=True)]
        assert state.propose(9) == wanted
        state.accept(65)
        wanted = [p.token for p in model.generate([*tokens, 65], sampler="greedy", max_tokens=2, ignore_end=True)]
        assert state.propose(2) == wanted
        drafter.loaded.close()


@pytest.mark.full
def test_the_kit_on_a_draft_model(file: Path) -> None:
    with sis_core.load(file, backend="numpy") as model:
        check_drafter(DraftModel, model=str(file), most=2, tokenizer=model.tokenizer, n_vocab=N_VOCAB)


def test_a_draft_model_of_another_vocabulary_is_refused(file: Path, tmp_path: Path) -> None:
    names = metadata()["tokenizer.ggml.tokens"]
    other = write_model(tmp_path / "other.gguf", metadata(tokenizer__ggml__tokens=[*names[:-1], "Ġq"]))
    with pytest.raises(SisError, match=r"its vocabulary is another: token 259 is .*of the same family"):
        sis_core.load(file, backend="numpy", speculate=f"draft-model={other}")
    with pytest.raises(SisError, match=r"none\.gguf"):
        sis_core.load(file, backend="numpy", speculate=f"draft-model={tmp_path / 'none.gguf'}")


def test_a_text_that_ended_is_guessed_again_by_those_who_may_know_it(file: Path) -> None:
    with sis_core.load(file, backend="stub", speculate="suffix") as model, model.scheduler(max_tokens=512) as scheduler:

        def steps(salt: str) -> tuple[list[int | None], int]:
            before = scheduler.session.stats.steps
            scheduler.add(model.request("Once", seed=5, max_tokens=60, ignore_end=True, salt=salt))
            return [piece.token for piece in scheduler.run()], scheduler.session.stats.steps - before

        wanted, first = steps("one")
        again, second = steps("one")
        other, third = steps("another")
        assert wanted == again == other
        assert first == third > 50
        assert second < 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lookup:most=0", "drafter lookup: most is 0, but must be a whole number from 1 to 64"),
        ("lookup:shortest=6", "drafter lookup: shortest is 6, and longest only 4: it would never guess"),
    ],
)
def test_options_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(SisError) as caught:
        make_drafting(Registry.load(), text)
    assert str(caught.value) == message
