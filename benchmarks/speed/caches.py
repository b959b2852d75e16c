"""What each type of cache loses on one side, from that side's own float32 cache; `cache_types.py` starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from speed import course

Rows: TypeAlias = Callable[
    [list[int]], Any
]  # a chunk's tokens to the logits (n, n_vocab) after each of its second half


@contextmanager
def ours(path: str, n_threads: int, n_ctx: int, kv_type: str, backend: str | None) -> Iterator[Rows]:
    from sis_core.texts.language_model import load

    how = {"backend": backend, "n_threads": n_threads}
    with load(path, n_ctx=n_ctx, kv_type=kv_type, **how) as model, model.session() as session:

        def rows(tokens: list[int]) -> Any:
            session.drop(0)
            session.feed(tokens[: len(tokens) // 2])
            return session.feed(tokens[len(tokens) // 2 :], every=True)

        yield rows


@contextmanager
def theirs(path: str, n_threads: int, n_ctx: int, kv_type: str) -> Iterator[Rows]:
    from speed.theirs import LlamaCpp

    engine = LlamaCpp(path, n_threads, True, kv_type)  # quantised caches need flash attention

    def rows(tokens: list[int]) -> Any:
        engine.begin(1, max(course.CHUNK, n_ctx))
        found, half = [], len(tokens) // 2
        for at in range(0, len(tokens), course.CHUNK):
            part = tokens[at : at + course.CHUNK]
            engine.step(part, last=True, every=at + len(part) > half)
            if at + len(part) > half:
                found.append(engine.logits(len(part))[max(0, half - at) :])
        return np.concatenate(found)

    yield rows


def log_softmax(logits: Any) -> Any:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(true: Any, found: Any) -> Any:
    """KL(true ‖ found) of each row of logits, in nats; a few rows at a time, so that copies stay small."""
    parts = []
    for at in range(0, len(true), 64):
        t, f = log_softmax(true[at : at + 64]), log_softmax(found[at : at + 64])
        parts.append((np.exp(t) * (t - f)).sum(-1))
    return np.concatenate(parts)


def main() -> None:
    asked = course.request()
    chunks = [chunk.tolist() for chunk in np.load(asked["tokens"]).values()]
    common = (asked["path"], asked["n_threads"], len(chunks[0]))

    def opened(kv_type: str) -> Any:
        if asked["side"] == "llama.cpp":
            return theirs(*common, kv_type)
        return ours(*common, kv_type, asked["backend"])

    with opened("f32") as rows:
        true = [rows(chunk)[:: asked["every"]] for chunk in chunks]
    for kv_type in asked["types"]:
        with opened(kv_type) as rows:
            kl = np.concatenate(
                [divergence(t, rows(chunk)[:: asked["every"]]) for t, chunk in zip(true, chunks, strict=True)]
            )
        error = kl.std(ddof=1) / np.sqrt(len(kl))
        course.say(type=kv_type, mean=float(kl.mean()), error=float(error), median=float(np.median(kl)), n=len(kl))


if __name__ == "__main__":
    sys.exit(main())
