"""Text from a session: prefill, decode and sample any number of prompts together, one step for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from attrs import define, frozen

from sis_core.arrays import F32
from sis_core.errors import ContextError
from sis_core.sampler import Sampler, SamplerContext, log_softmax
from sis_core.texts.chain import Chain
from sis_core.texts.session import Outputs, Session, n_common, take_chunk
from sis_core.texts.stops import StopFilter
from sis_core.tokenizer import TextStream

FinishReason = Literal["length", "stop", "end", "context"]
ContextPolicy = Literal["error", "shift"]


@frozen
class TokenLogprob:
    """A token and the natural logarithm of its probability under the raw logits."""

    token: int
    logprob: float


class Piece(str):
    """A piece of generated text, with what is known of it. It is a str: print it, join it.

    Attributes:
        token: the id behind it, or None for text that was held back until the end.
        sequence: which prompt of a batch it belongs to.
        logprob: of the token under the raw logits, when logprobs were asked for.
        top: the most likely tokens at this place, when asked for.
        finish_reason: set on the last piece: ``length`` (max_tokens), ``stop`` (a stop string), ``end`` (the model's
            own end token) or ``context`` (n_ctx is full).
        degraded: whether anything was guessed or repeated on the way.
    """

    token: int | None
    sequence: int
    logprob: float | None
    top: tuple[TokenLogprob, ...]
    finish_reason: FinishReason | None
    degraded: bool

    @classmethod
    def of(
        cls,
        text: str,
        *,
        token: int | None = None,
        sequence: int = 0,
        logprob: float | None = None,
        top: tuple[TokenLogprob, ...] = (),
        finish_reason: FinishReason | None = None,
        degraded: bool = False,
    ) -> Piece:
        piece = cls(text)
        piece.token, piece.sequence, piece.logprob, piece.top = token, sequence, logprob, top
        piece.finish_reason, piece.degraded = finish_reason, degraded
        return piece


@frozen
class Request:
    """One prompt and how to continue it.

    Attributes:
        prompt: token ids, at least one.
        samplers: the chain, in order.
        max_tokens: tokens to generate at most; None until the model ends or the context is full.
        stop: strings that end the text; they are not part of it.
        logprobs: how many of the most likely tokens to report with each piece; None for no logprobs at all.
        context: what to do when ``n_ctx`` is reached: ``error`` refuses a longer prompt and ends a text there,
            ``shift`` keeps the first ``n_keep`` tokens and the newer half of the rest.
        ignore_end: go on after the model's end token.
    """

    prompt: Sequence[int]
    samplers: Sequence[Sampler]
    max_tokens: int | None = 128
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: int | None = None
    context: ContextPolicy = "error"
    n_keep: int = 4
    ignore_end: bool = False


@define(eq=False)
class _Running:
    """A request on its way."""

    index: int
    request: Request
    chain: Chain
    text: TextStream
    stops: StopFilter
    end_tokens: frozenset[int]
    n_generated: int = 0


def run(session: Session, requests: Sequence[Request]) -> Iterator[Piece]:
    """Continue all requests together, yielding pieces as they come; each request's last piece has a finish_reason.

    Request ``i`` is sequence ``i`` of the session; it goes on from what that sequence holds. A step has one token of
    each sequence that is decoding, and the rest of its 512 rows are prefill. The last token chosen is given out but
    not fed: whoever goes on with the session feeds it first.

    Raises:
        ContextError: a prompt is longer than ``n_ctx`` (before anything runs), unless its policy is ``shift``.
    """
    running: list[_Running] = []
    pending: dict[int, Sequence[int]] = {}  # ids that the session does not have yet: the prompt, then a token a step
    for index, request in enumerate(requests):
        prompt = _prompt(session, index, request)
        running.append(_start(session, index, request, prompt))
        pending[index] = prompt
    while pending:
        chosen, pending = take_chunk(pending)
        outputs: dict[int, Outputs] = {index: "none" if index in pending else "last" for index in chosen}
        for index, logits in session.advance(chosen, outputs).items():
            piece = _continue(session, running[index], logits[-1])
            if piece.finish_reason is None and piece.token is not None:
                pending[index] = [piece.token]
            yield piece


def _prompt(session: Session, index: int, request: Request) -> list[int]:
    """What of a request's prompt is to be fed; of a text that is too long, the part that its policy leaves."""
    prompt = session.valid(request.prompt)
    if not prompt:
        raise ContextError("the prompt has no tokens", where="prompt", fix="give at least one character")
    before = session.tokens(index) + prompt
    if request.context == "shift" and len(before) > session.n_ctx:
        before = shifted(before, session.n_ctx, request.n_keep)
        session.truncate(index, n_common(before, session.tokens(index)))
        prompt = before[session.length(index) :]
    session.check_room(len(prompt), index)
    return prompt


def _start(session: Session, index: int, request: Request, prompt: list[int]) -> _Running:
    tokenizer = session.model.tokenizer
    before = session.tokens(index) + prompt
    context = SamplerContext(session.model.config.n_vocab, before, tokenizer, request.seed)
    at_start = not tokenizer.decode(before[:8])  # nothing but control tokens: the text begins here
    return _Running(
        index,
        request,
        Chain.start(request.samplers, context),
        TextStream(tokenizer, at_start=at_start),
        StopFilter(request.stop),
        frozenset() if request.ignore_end else tokenizer.end_tokens,
    )


def _continue(session: Session, running: _Running, logits: F32) -> Piece:
    """Choose the next token of one request, and what it completes."""
    request = running.request
    token = running.chain.choose(logits, running.n_generated)
    running.chain.accept(token)
    running.n_generated += 1
    reason: FinishReason | None = None
    if token in running.end_tokens:
        reason, text = "end", ""
    else:
        text = running.stops.push(running.text.push(token))
        if running.stops.found:
            reason = "stop"
        elif request.max_tokens is not None and running.n_generated >= request.max_tokens:
            reason = "length"
        elif session.length(running.index) >= session.n_ctx and not _shift(session, running):
            reason = "context"
    if reason not in (None, "stop"):
        text += running.stops.flush(running.text.flush())
        reason = "stop" if running.stops.found else reason
    logprob, top = _logprobs(logits, token, request.logprobs)
    return Piece.of(
        text,
        token=token,
        sequence=running.index,
        logprob=logprob,
        top=top,
        finish_reason=reason,
        degraded=session.degraded,
    )


def _shift(session: Session, running: _Running) -> bool:
    """Let the oldest text fall out of a full context; False when the request does not want that."""
    if running.request.context != "shift":
        return False
    session.rewrite(running.index, shifted(session.tokens(running.index), session.n_ctx, running.request.n_keep))
    return True


def shifted(tokens: Sequence[int], n_ctx: int, n_keep: int) -> list[int]:
    """The first ``n_keep`` tokens and the newest that fill the context to a half.

    They are computed again at their new places, which is right for every family, unlike rotating old keys.
    """
    n_keep = min(n_keep, n_ctx // 4)
    n_tail = max(1, n_ctx // 2 - n_keep)
    return [*tokens[:n_keep], *tokens[len(tokens) - n_tail :]]


def _logprobs(logits: F32, token: int, n: int | None) -> tuple[float | None, tuple[TokenLogprob, ...]]:
    if n is None:
        return None, ()
    values = log_softmax(logits)
    near = np.argpartition(-values, n)[:n] if n < len(values) else np.arange(len(values))
    best = sorted(near.tolist(), key=lambda i: (-values[i], i))
    return float(values[token]), tuple(TokenLogprob(i, float(values[i])) for i in best)
