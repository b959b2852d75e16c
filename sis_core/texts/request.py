"""What is asked of a model and what comes back: a request, the pieces of its text, and the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.errors import SamplerError, SisError
from sis_core.loading.checks import check_option, several, several_texts, token_ids
from sis_core.sampler import Sampler
from sis_core.step import MAX_INT32
from sis_core.texts.context import Context, Sinks, make_context

FinishReason = Literal["length", "stop", "end", "context", "error"]
Wanted = Literal["text", "logits", "hidden"]
RULES: dict[str, dict[str, Any]] = {
    "max_tokens": {"least": 1, "optional": True},
    "logprobs": {"least": 0, "optional": True},
    "prompt_logprobs": {"least": 0, "optional": True},
    "want": {"choices": get_args(Wanted)},
    "n_keep": {"least": 0},
    "ignore_end": {"kind": bool},
    "spell_special": {"kind": bool},
    "adapter": {"kind": str, "optional": True},
    "priority": {"kind": int},
    "salt": {"kind": str},
}
MOST_SEED = 2**64 - 1


@frozen
class TokenLogprob:
    """A token and the natural logarithm of its probability under the raw logits."""

    token: int
    logprob: float


@frozen
class PromptLogprob:
    """A token of a prompt, the logarithm of its probability after those before it, and what was likeliest there."""

    token: int
    logprob: float
    top: tuple[TokenLogprob, ...]


def _prompt(given: Iterable[int]) -> Sequence[int]:
    return token_ids(given)


def _samplers(given: Iterable[Sampler]) -> Sequence[Sampler]:
    found = several("samplers", given)
    for sampler in found:
        if not isinstance(sampler, Sampler):
            raise SamplerError(f"{sampler!r:.60} is no sampler", where="samplers", fix="make one: TopK(40)")
    return found


def _stops(given: Iterable[str]) -> tuple[str, ...]:
    return several_texts("stop", given)


def _seed(given: int) -> int:
    check_option("seed", given, least=0, most=MOST_SEED)
    return given.__index__()


@frozen
class Request:
    """One prompt and how to continue it.

    Attributes:
        prompt: token ids, at least one.
        samplers: the chain, in order.
        max_tokens: tokens to generate at most; None until the model ends or the context is full.
        stop: strings that end the text, and names of control tokens that do; they are not part of it.
        seed: from 0 to 2**64 - 1; the same seed makes the same text.
        logprobs: how many of the most likely tokens to report with each piece; None for no logprobs at all.
        prompt_logprobs: the same for the tokens of the prompt, all but the first; they come with the first piece.
        want: ``text`` continues the prompt; ``logits`` and ``hidden`` end after it, with a row for each of its tokens.
        context: what to do when ``n_ctx`` is reached: ``error`` refuses a longer prompt and ends a text there,
            ``shift`` keeps the first ``n_keep`` tokens and the newer half of the rest, and computes them again, and
            ``sinks:4`` (or a `Sinks`) keeps the first 4 and a window of the newest as they are in the cache. An
            `Eviction` gives back pages of a long prompt once it was read.
        ignore_end: go on after the model's end token.
        spell_special: control tokens that the model writes are part of the text, by their names; not the end token.
        adapter: a LoRA adapter of the model, by name.
        priority: those with more are let in first and give way last; among equals the order of arrival counts.
        salt: texts share what is known of their beginnings only with those of the same salt.
    """

    prompt: Sequence[int] = field(converter=_prompt)
    samplers: Sequence[Sampler] = field(default=(), converter=_samplers)
    max_tokens: int | None = 128
    stop: tuple[str, ...] = field(default=(), converter=_stops)
    seed: int = field(default=0, converter=_seed)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    want: Wanted = "text"
    context: Context = field(default="error", converter=make_context)
    n_keep: int = 4
    ignore_end: bool = False
    spell_special: bool = False
    adapter: str | None = None
    priority: int = 0
    salt: str = ""

    def __attrs_post_init__(self) -> None:
        for name, rule in RULES.items():
            check_option(name, getattr(self, name), **rule)
        if self.want == "hidden" and self.prompt_logprobs is not None:
            raise SisError(
                "hidden states have no probabilities",
                where="prompt_logprobs",
                fix='ask for want="logits", or in two requests',
            )

    @property
    def most_tokens(self) -> int:
        """Tokens that its text may come to, the prompt's among them."""
        if self.want != "text":
            return max(1, len(self.prompt))
        return MAX_INT32 if self.max_tokens is None else len(self.prompt) + self.max_tokens

    @property
    def outgrows(self) -> bool:
        """Whether its text may become longer than the context."""
        return self.context == "shift" or isinstance(self.context, Sinks)

    @property
    def reads_prompt(self) -> bool:
        """Whether a result is wanted for every token of the prompt: nothing of it may be known already."""
        return self.want != "text" or self.prompt_logprobs is not None


class Piece(str):
    """A piece of generated text, with what is known of it. It is a str: print it, join it.

    Attributes:
        token: the id behind it, or None for the end of a text that has no more tokens.
        sequence: which text it belongs to: the number that `Scheduler.add` gave, the place in a batch.
        logprob: of the token under the raw logits, when logprobs were asked for.
        top: the most likely tokens at this place, when asked for.
        prompt_logprobs: of the prompt's second and later tokens, on the first piece, when asked for.
        finish_reason: set on the last piece: ``length`` (max_tokens), ``stop`` (a stop string), ``end`` (the model's
            own end token), ``context`` (n_ctx is full) or ``error``.
        stop: the stop string, or the name of the control token, that ended the text, on its last piece.
        n_cached: tokens of the prompt that were known from an earlier text, and not computed again.
        rows: what a request for logits or hidden states wanted, float32 ``(n_prompt, n_vocab)`` or
            ``(n_prompt, n_embd)``, on its one piece.
        error: why the text ended, where the reason is ``error``.
        degraded: whether anything was guessed or repeated on the way.
    """

    token: int | None = None
    sequence: int = 0
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[PromptLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | None = None
    n_cached: int = 0
    rows: F32 | None = None
    error: SisError | None = None
    degraded: bool = False

    @classmethod
    def of_error(cls, error: SisError, sequence: int = 0) -> Piece:
        """The only piece of a text that could not begin."""
        piece = cls()
        piece.sequence, piece.finish_reason, piece.error = sequence, "error", error
        return piece


@frozen
class Completion:
    """The whole answer to one prompt. ``logprobs`` is empty unless asked for; ``error`` says why a text broke off."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    degraded: bool
    error: SisError | None = None

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Completion:
        """Join the pieces of one text."""
        last = pieces[-1]
        return cls(
            "".join(pieces),
            tuple(p.token for p in pieces if p.token is not None),
            tuple(p.logprob for p in pieces if p.logprob is not None),
            last.finish_reason or "length",
            last.degraded,
            last.error,
        )
