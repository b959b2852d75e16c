"""The model as people use it from Python: text in, text out."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from attrs import frozen

from sis_core.arrays import F32
from sis_core.errors import ContextError, SamplerError, SisError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.loading.options import HALF, LoadOptions, Policy, documented
from sis_core.registry import Registry
from sis_core.sampler import Sampler
from sis_core.source import Progress, resolve
from sis_core.texts.chain_text import make_chain
from sis_core.texts.generate import ContextPolicy, FinishReason, Piece, Request, run
from sis_core.texts.session import Session

Prompt = str | Sequence[int]


@frozen
class Completion:
    """The whole answer to one prompt. ``logprobs`` is empty unless asked for."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    degraded: bool


class LanguageModel(Model):
    """A `Model` with text. Make one with `load`."""

    on_error: Policy = "strict"

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; ``add_special`` adds what the model wants at the beginning."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without control tokens."""
        return self.tokenizer.decode(tokens)

    def with_backend(self, backend: str) -> LanguageModel:
        """A second model over the same file with another backend; each is closed on its own."""
        other = super().with_backend(backend)
        other.on_error = self.on_error
        return other

    def session(self, *, n_ctx: int | None = None, max_tokens: int | None = None) -> Session:
        """A session for working token by token. ``max_tokens`` (at least ``n_ctx``) is what its
        cache holds over all sequences."""
        return Session(self, n_ctx=n_ctx, max_tokens=max_tokens, on_error=self.on_error)

    def generate(self, prompt: Prompt, **options: Any) -> Iterator[Piece]:
        """Continue ``prompt`` (text or token ids), piece by piece.

        Options are those of `request`, and the options of any sampler (``temperature=0.8``).
        """
        request = self.request(prompt, **options)
        return self.stream([request])

    def generate_batch(self, prompts: Sequence[Prompt], **options: Any) -> list[Completion]:
        """Continue several prompts together: each step of the model serves all of them."""
        pieces: list[list[Piece]] = [[] for _ in prompts]
        if isinstance(prompts, str):
            raise SisError("is one text, not several", where="prompts", fix="give a list of texts")
        if not prompts:
            return []
        for piece in self.stream([self.request(prompt, **options) for prompt in prompts]):
            pieces[piece.sequence].append(piece)
        return [completion(part) for part in pieces]

    def request(
        self,
        prompt: Prompt,
        *,
        sampler: str | Sampler | Sequence[Sampler] | None = None,
        samplers: str | Sequence[Sampler] | None = None,
        max_tokens: int | None = 128,
        stop: Sequence[str] | str = (),
        seed: int | None = None,
        logprobs: int | None = None,
        context: ContextPolicy = "error",
        n_keep: int = 4,
        ignore_end: bool = False,
        add_special: bool = True,
        parse_special: bool = False,
        **options: Any,
    ) -> Request:
        """A `Request` from what a person would write. Without ``seed`` every call draws anew."""
        _at_least(1, max_tokens=max_tokens)
        _at_least(0, n_keep=n_keep, logprobs=logprobs)
        tokens = (
            self.tokenize(prompt, add_special=add_special, parse_special=parse_special)
            if isinstance(prompt, str)
            else prompt
        )
        return Request(
            tokens,
            make_chain(self.registry, sampler, samplers, options),
            max_tokens=max_tokens,
            stop=_checked_stops((stop,) if isinstance(stop, str) else tuple(stop)),
            seed=int.from_bytes(os.urandom(8), "little") if seed is None else operator.index(seed),
            logprobs=logprobs,
            context=context,
            n_keep=n_keep,
            ignore_end=ignore_end,
        )

    def logits(self, prompt: Prompt) -> F32:
        """Raw logits after every token of ``prompt``: float32 ``(n, n_vocab)``."""
        return self._once(prompt, "logits")

    def hidden(self, prompt: Prompt) -> F32:
        """Hidden states after the output norm, for every token of ``prompt``: float32 ``(n, n_embd)``."""
        return self._once(prompt, "hidden")

    def _once(self, prompt: Prompt, want: Literal["logits", "hidden"]) -> F32:
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise ContextError("the prompt has no tokens", where="prompt", fix="give at least one character")
        with self.session(max_tokens=len(tokens)) as session:
            return session.hidden(tokens) if want == "hidden" else session.feed(tokens, every=True)

    def stream(self, requests: Sequence[Request]) -> Iterator[Piece]:
        needed = [self._room(request) for request in requests]
        with self.session(
            n_ctx=min(self.config.n_ctx, max(needed)), max_tokens=sum(needed) + 32 * len(needed)
        ) as session:
            yield from run(session, requests)

    def _room(self, request: Request) -> int:
        if request.max_tokens is None:
            return self.config.n_ctx
        return min(self.config.n_ctx, len(request.prompt) + request.max_tokens)


def _checked_stops(stops: tuple[str, ...]) -> tuple[str, ...]:
    if "" in stops:
        raise SamplerError("a stop string is empty", where="--stop", fix="leave it out to go on without one")
    return stops


def _at_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and operator.index(value) < least:
            raise SisError(f"is {value}, but must be at least {least}", where=name)


def completion(pieces: Sequence[Piece]) -> Completion:
    """Join the pieces of one request."""
    return Completion(
        "".join(pieces),
        tuple(p.token for p in pieces if p.token is not None),
        tuple(p.logprob for p in pieces if p.logprob is not None),
        pieces[-1].finish_reason or "length",
        pieces[-1].degraded,
    )


@documented
def load(
    model: str | os.PathLike[str] | None = None,
    *,
    backend: str | None = None,
    n_ctx: int | None = None,
    kv_type: str = HALF,
    n_threads: int | None = None,
    pack: bool | None = None,
    gradual: bool | None = None,
    pin: bool = False,
    batch_invariant: bool = False,
    on_error: Policy = "strict",
    memory_limit: int | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> LanguageModel:
    """Load a model; use it as a context manager, or `close` it.

    Args:
        model: a path or a source's name; None for the built-in model of an installed source.
        {options}
        progress: called with bytes done and bytes in all while a model is fetched, and while weights are packed.
        registry: plugins to use; None for all that are installed.

    Raises:
        SisError: the model cannot be found, read or run faithfully; the message says why and what to do.
    """
    options = LoadOptions(
        backend=backend, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, pack=pack, gradual=gradual, pin=pin,
        batch_invariant=batch_invariant, on_error=on_error, memory_limit=memory_limit,
    )  # fmt: skip
    registry = registry or Registry.load()
    path = resolve(None if model is None else os.fspath(model), registry.records("sources"), progress)
    loaded = open_model(
        LanguageModel,
        path,
        registry,
        backend=options.backend,
        n_ctx=options.n_ctx,
        options=options.for_backends(progress),
        degrade=options.on_error == "degrade",
        memory_limit=options.memory_limit,
    )
    loaded.on_error = options.on_error
    return loaded
