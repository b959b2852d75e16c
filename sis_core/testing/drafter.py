"""`check_drafter`: what every drafter must keep to, whatever it guesses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs
import numpy as np

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.tokenizer import Tokenizer

N_VOCAB = 60
MOST = 16


def check_drafter(
    drafter: type[Drafter], /, *, tokenizer: Tokenizer | None = None, n_vocab: int = N_VOCAB, **fields: Any
) -> None:
    """Hold a drafter to the contract of `sis_core.drafter`, with ``fields`` as its options.

    Args:
        tokenizer: what the drafter is told of the text's tokenizer, where it asks for one.
        n_vocab: tokens of the vocabulary, at least 20.

    Raises:
        AssertionError: naming the drafter, the fault, and the text in which it showed.
    """
    check = _Check(drafter, fields, tokenizer, n_vocab)
    check.options()
    guessed = False
    for case, tokens in _texts(n_vocab):
        guessed |= check.text(tokens, case)
    if not guessed:
        check.fail("never guessed anything, not even in a text that repeats itself")


def _texts(n_vocab: int) -> list[tuple[str, list[int]]]:
    chance = random.Random(5)
    noise = [chance.randrange(n_vocab) for _ in range(120)]
    words = [[chance.randrange(n_vocab) for _ in range(5)] for _ in range(6)]
    return [
        ("a text that repeats itself", [3, 1, 4, 1, 5, 9, 2, 6] * 12),
        ("one token over and over", [7] * 50),
        ("noise", noise),
        ("words in any order", [token for _ in range(25) for token in chance.choice(words)]),
        ("the ends of the vocabulary", [0, n_vocab - 1] * 20),
    ]


class _Check:
    def __init__(
        self, drafter: type[Drafter], fields: dict[str, Any], tokenizer: Tokenizer | None, n_vocab: int
    ) -> None:
        self.drafter, self.fields, self.tokenizer, self.n_vocab = drafter, fields, tokenizer, n_vocab
        self.name = getattr(drafter, "name", drafter.__name__)

    def fail(self, fault: str, case: str = "") -> NoReturn:
        raise AssertionError(f"drafter {self.name}: {fault}{f' ({case})' if case else ''}")

    def options(self) -> None:
        if not isinstance(getattr(self.drafter, "name", None), str):
            self.fail("has no name")
        self.made = self.drafter(**self.fields)
        if self.drafter.automatic:
            try:
                self.drafter()
            except Exception as error:
                self.fail(f"is automatic, but cannot be made without options: {error}")
        if not attrs.has(self.drafter):
            return
        for field in attrs.fields(self.drafter):
            if not field.metadata.get("help"):
                self.fail(f'the option {field.name} has no help: give metadata={{"help": ...}}')

    def start(self, tokens: Sequence[int], past: Sequence[Sequence[int]] = ()) -> DraftState:
        given, before = list(tokens), [list(text) for text in past]
        state = self.made.start(DraftContext(self.n_vocab, given, self.tokenizer, before))
        if not isinstance(state, DraftState):
            self.fail(f"start returned {type(state).__name__}, not a DraftState")
        if given != list(tokens) or before != [list(text) for text in past]:
            self.fail("start changed the tokens that it was given")
        return state

    def text(self, tokens: list[int], case: str) -> bool:
        """One text, from several beginnings; whether anything was guessed."""
        chances = np.random.get_state(legacy=False), random.getstate()
        guessed = False
        for n_prompt in (0, 1, len(tokens) // 2):
            prompt, rest = tokens[:n_prompt], tokens[n_prompt:]
            states = [self.start(prompt), self.start(prompt), self.start(prompt, [tokens[::-1], tokens])]
            fork = len(rest) // 2
            for i, token in enumerate(rest):
                guess = self.propose(states[0], f"{case}, token {n_prompt + i}")
                guessed |= bool(guess)
                if self.propose(states[1], case) != guess:
                    self.fail("two states of the same text guess differently", case)
                self.propose(states[2], case)
                if i == fork:
                    self.copies(states[0], rest[i:], case)
                for state in states:
                    state.accept(token)
            if self.propose(self.start(tokens), case) != self.propose(states[0], case):
                self.fail("guesses otherwise where the same tokens were a prompt", case)
        if str(np.random.get_state(legacy=False)) != str(chances[0]) or random.getstate() != chances[1]:
            self.fail("draws from a global generator", case)
        return guessed

    def propose(self, state: DraftState, case: str) -> list[int]:
        """A guess, which must be short enough, of tokens, and change nothing."""
        if len(state.propose(0)):
            self.fail("guessed tokens when asked for none", case)
        first, again = list(state.propose(MOST)), list(state.propose(MOST))
        if first != again:
            self.fail(f"guessed {first}, and then {again}: propose must change nothing", case)
        if len(first) > MOST or len(state.propose(1)) > 1:
            self.fail("guessed more tokens than it was asked for", case)
        wrong = [token for token in first if isinstance(token, bool) or not 0 <= token < self.n_vocab]
        if wrong:
            self.fail(f"guessed {wrong[0]!r}, which is no token", case)
        return first

    def copies(self, state: DraftState, rest: Sequence[int], case: str) -> None:
        one, other = state.copy(), state.copy()
        wanted = self.propose(state, case)
        for token in rest[::-1][:9]:
            one.accept(token)
            self.propose(one, case)
        if self.propose(state, case) != wanted:
            self.fail("accept on a copy changes the original", case)
        if self.propose(other, case) != wanted:
            self.fail("a copy does not go on as its original did", case)
