"""Texts as they are generated: plain, several at once, or a JSON object for each token."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import click

from sis_core.cli.common import json_line
from sis_core.cli.streams import say, write_text
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.prompt_cache import PromptCache
from sis_core.texts.request import Piece, Request

log = logging.getLogger(__name__)


def print_text(model: LanguageModel, request: Request, prompt: str, cache: PromptCache | None = None) -> None:
    """One text, piece by piece, after ``prompt``, which is printed once nothing can be refused any more."""
    started, first, n_tokens, last = time.perf_counter(), 0.0, 0, None
    try:
        for piece in model.stream([request], cache):
            if last is None:
                first = time.perf_counter()
                write_text(prompt)
            last, n_tokens = piece, n_tokens + 1
            if piece:
                write_text(piece)
    finally:
        if last is not None:
            click.echo()
    took = time.perf_counter() - first
    if n_tokens > 1:
        log.info("prompt: %d tokens, %.1f tokens/s", len(request.prompt), len(request.prompt) / (first - started))
        log.info("decode: %d tokens, %.1f tokens/s", n_tokens - 1, (n_tokens - 1) / took)
    if last is not None:
        _tell_end(last, n_tokens)


def print_texts(
    model: LanguageModel, requests: Sequence[Request], prompts: Sequence[str], cache: PromptCache | None = None
) -> None:
    """Several texts as they grow, by whole lines that begin with the number of their text; nothing made is lost.

    What goes wrong with one of them is raised when the others are done.
    """
    lines = list(prompts)  # what of each text has no line of its own yet
    errors, n_tokens = [], [0] * len(requests)
    last: dict[int, Piece] = {}
    try:
        for piece in model.together(requests, cache):
            i = piece.sequence
            last[i], n_tokens[i] = piece, n_tokens[i] + 1
            *whole, lines[i] = (lines[i] + piece).split("\n")
            for line in whole:
                write_text(f"[{i + 1}] {line}\n")
            if piece.finish_reason:
                write_text(f"[{i + 1}] {lines[i]}\n")
                lines[i] = ""
                if piece.error is not None:
                    errors.append(piece.error)
    finally:
        for i, line in enumerate(lines):
            if line and i in last:
                write_text(f"[{i + 1}] {line}\n")
    for i, piece in sorted(last.items()):
        _tell_end(piece, n_tokens[i], f"[{i + 1}] ")
    if errors:
        raise errors[0]


def print_json(model: LanguageModel, requests: Sequence[Request], cache: PromptCache | None = None) -> None:
    """A JSON object for each token; the last of a text says why it ended, and the seed."""
    for piece in model.stream(requests, cache):
        line: dict[str, Any] = {"sequence": piece.sequence, "text": str(piece)}
        line |= {"token": piece.token, "logprob": piece.logprob}
        if piece.top:
            spell = model.tokenizer.token_text
            line["top"] = [{"token": t.token, "logprob": t.logprob, "text": spell(t.token)} for t in piece.top]
        if piece.finish_reason:
            request = requests[piece.sequence]
            line |= {"finish_reason": piece.finish_reason, "prompt_tokens": len(request.prompt), "seed": request.seed}
            line["degraded"] = piece.degraded
        json_line(line)


def _tell_end(last: Piece, n_tokens: int, which: str = "") -> None:
    """Why a text ended, where it was not its own end; and that it is not what the model would say."""
    reasons = {"length": f"ended after {n_tokens} tokens (-n)", "context": "ended where the context is full (--ctx)"}
    if last.finish_reason in reasons:
        say(f"sis: {which}{reasons[last.finish_reason]}")
    if last.degraded:
        log.warning("%sthe result is degraded: see the warnings above", which)
