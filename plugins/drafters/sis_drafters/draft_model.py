"""A smaller model of the same vocabulary, which writes a few tokens ahead."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, Self

import attrs
from attrs import frozen

import sis_core
from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.errors import SisError
from sis_core.sampler import integer_option
from sis_core.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@frozen(slots=False)
class DraftModel(Drafter):
    """The likeliest tokens of another model (Leviathan et al. 2023, Chen et al. 2023).

    Its weights and, for each text, its cache take memory beside the model's own; a line of the log says how much.
    """

    name = "draft-model"

    model: str = attrs.field(converter=str, metadata={"help": "a GGUF file, or a model by a source's name"})
    most: int = integer_option(4, low=1, high=16, help="tokens of a guess")

    @cached_property
    def loaded(self) -> Any:
        """The model, loaded when first used."""
        model = sis_core.load(self.model)
        network = model.network
        n_bytes = sum(weight.nbytes for weight in network.weights(range(network.n_layer)))
        per_token = model.forward.cache_nbytes(model.options.kv_type, 1024) / 1024
        about = f"{n_bytes / 2**20:.1f} MiB of weights, {per_token / 1024:.1f} KiB of cache a token"
        log.info("draft model %s: %s", self.model, about)
        return model

    def start(self, context: DraftContext) -> DraftState:
        """SisError unless the draft model has the vocabulary of the model."""
        where = f"drafter {self.name}, {self.model}"
        if context.tokenizer is None:
            raise SisError("needs the model's tokenizer, and there is none", where=where)
        if (difference := _difference(context.tokenizer, self.loaded.tokenizer)) is not None:
            self.loaded.close()
            raise SisError(
                f"its vocabulary is another: {difference}", where=where, fix="take a model of the same family"
            )
        return DraftModelState(self, list(context.tokens))


class DraftModelState(DraftState):
    """A session of the draft model, which is brought up to the text when a guess is asked for."""

    def __init__(self, options: DraftModel, tokens: list[int]) -> None:
        self._options, self._tokens = options, tokens
        self._session = options.loaded.session()

    def propose(self, k: int) -> list[int]:
        session, tokens = self._session, self._tokens
        k = min(k, self._options.most, session.n_ctx - len(tokens))
        if k <= 0 or not tokens:
            return []
        known = session.tokens() if session.length() else []
        pairs = enumerate(zip(known, tokens, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(known), len(tokens)))
        if len(known) > (kept := min(same, len(tokens) - 1)):  # the last one is fed for its logits
            session.truncate(0, kept)
        logits = session.feed(tokens[session.length() :])
        guess = [int(logits[0].argmax())]
        while len(guess) < k:
            guess.append(int(session.feed(guess[-1:])[0].argmax()))
        return guess

    def accept(self, token: int) -> None:
        self._tokens.append(token)

    def copy(self) -> Self:
        return type(self)(self._options, list(self._tokens))


def _difference(wanted: Tokenizer, found: Tokenizer) -> str | None:
    """What is not the same, or None."""
    if wanted.n_vocab != found.n_vocab:
        return f"{found.n_vocab} tokens, not {wanted.n_vocab}"
    for token in range(wanted.n_vocab):
        if wanted.token_text(token) != found.token_text(token):
            return f"token {token} is {found.token_text(token)!r}, not {wanted.token_text(token)!r}"
    return None
