"""The state of `sis_grammar.sampler.Grammar`: the place of one text, and the next one, which is computed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from sis_core.arrays import F32
from sis_core.errors import SamplerError, SisError
from sis_core.sampler import SamplerState, keep
from sis_core.tokenizer import Tokenizer
from sis_grammar.caps import WHERE
from sis_grammar.place import Place, after
from sis_grammar.vocabulary import Vocabulary

SECONDS = (
    10.0  # for one mask, most of which take microseconds; a text that must repeat something a million times is longer
)


class _Node:
    """A place that is there or on its way, and whether several states stand on it."""

    def __init__(self, place: Future[Place], *, shared: bool) -> None:
        self.place, self.shared = place, shared


class GrammarState(SamplerState):
    """One text following one grammar.

    While the model computes the step after an accepted token, `Vocabulary.worker` computes its mask. States that are
    copies of each other stand on the same node; one that goes on from a shared node takes a copy of llguidance's state.

    Args:
        start: where every text of the grammar begins.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, start: Place) -> None:
        self._tokenizer, self._vocabulary, self._start = tokenizer, vocabulary, start
        first: Future[Place] = Future()
        first.set_result(start)
        self._node, self._n_taken = _Node(first, shared=True), 0

    def apply(self, logits: F32) -> None:
        """Raises SamplerError when the grammar became too complex at this place, or the vocabulary cannot go on."""
        place = self._place()
        if self._n_taken < len(place.forced):
            keep(logits, np.array([place.forced[self._n_taken]], np.intp))
            return
        n = min(len(logits), len(place.forbidden))
        np.putmask(logits[:n], place.forbidden[:n], -np.inf)
        logits[n:] = -np.inf

    def accept(self, token: int) -> None:
        """Raises SamplerError for a token that `apply` would have forbidden: the text has left its grammar."""
        place = self._place()
        if self._n_taken < len(place.forced):
            if token != place.forced[self._n_taken]:
                raise self._left(token)
            self._n_taken += 1
            return
        if not place.allows(token):
            raise self._left(token)
        node, self._n_taken = self._node, 0
        self._node = _Node(self._vocabulary.worker.submit(self._after, place, token, node.shared), shared=False)

    def forced(self) -> Sequence[int]:
        """The tokens that come next whatever the model thinks: at each of them `apply` leaves that one alone."""
        return self._place().forced[self._n_taken :]

    def copy(self) -> GrammarState:
        other = object.__new__(GrammarState)
        self._node.shared = True
        other.__dict__.update(self.__dict__)
        return other

    def _place(self) -> Place:
        try:
            return self._node.place.result(SECONDS)
        except TimeoutError:
            raise SamplerError(
                f"what comes next is not known after {SECONDS:g} s", where=WHERE, fix="simplify the grammar"
            ) from None

    def _after(self, place: Place, token: int, shared: bool) -> Place:
        """On the worker. Being a method it holds the tokenizer, which llguidance calls."""
        try:
            return after(place, token, shared=shared)
        except SisError:
            self._vocabulary.forget(self._start)
            raise
        except BaseException as error:  # a panic of llguidance is no Exception
            self._vocabulary.forget(self._start)
            raise SamplerError(f"failed: {type(error).__name__}: {error}", where=WHERE) from error

    def _left(self, token: int) -> SamplerError:
        text = self._tokenizer.token_text(token) if 0 <= token < self._tokenizer.n_vocab else "?"
        return SamplerError(
            f"token {token}, {text!r}, does not go on as the grammar does",
            where=WHERE,
            fix="put no sampler into the chain that allows what others forbade",
        )
