"""The same texts with and without guesses, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median
from typing import Any, NamedTuple

from sis_core.errors import SisError
from sis_core.texts.drafting import Drafting
from sis_core.texts.feeding import SessionStats
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Request
from sis_core.texts.scheduler import Scheduler

Clock = Callable[[], float]
ROWS = (1, 2, 3, 4, 5, 8, 12, 16)


class Way(NamedTuple):
    """Texts that run together, and how they are guessed."""

    requests: Sequence[Request]
    drafting: Drafting


class Run(NamedTuple):
    """What became of texts."""

    tokens: list[list[int | None]]
    seconds: float
    stats: SessionStats


def run(model: LanguageModel, way: Way, clock: Clock = time.perf_counter) -> Run:
    """Texts together; their prompts are not timed."""
    needed = [len(request.prompt) + (request.max_tokens or 0) for request in way.requests]
    session = model.session(n_ctx=min(model.config.n_ctx, max(needed)), max_tokens=sum(needed) + 64 * len(needed))
    with Scheduler(session, reuse=False, drafting=way.drafting, clock=clock) as scheduler:
        numbers = [scheduler.add(request) for request in way.requests]
        tokens: dict[int, list[int | None]] = {number: [] for number in numbers}
        began = 0.0
        with closing(scheduler.run()) as pieces:
            for piece in pieces:
                if piece.error is not None:
                    raise piece.error
                tokens[piece.sequence].append(piece.token)
                if not began and all(tokens.values()):
                    began = clock()
        return Run(list(tokens.values()), clock() - began, session.stats)


def compare(
    name: str, model: LanguageModel, plain: Sequence[Way], ahead: Sequence[Way], rounds: int, clock: Clock
) -> dict[str, Any]:
    """Both ways in turn; the gain is the median over rounds. A difference between the texts ends the run."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    stats: dict[bool, list[SessionStats]] = {}
    n_tokens = 0
    for i in range(rounds):
        tokens = {}
        for guessing in (False, True) if i % 2 == 0 else (True, False):
            runs = [run(model, way, clock) for way in (ahead if guessing else plain)]
            tokens[guessing] = [one.tokens for one in runs]
            seconds[guessing].append(sum(one.seconds for one in runs))
            stats[guessing] = [one.stats for one in runs]
        if tokens[False] != tokens[True]:
            raise SisError("guessing changed a text", where=name)
        n_tokens = sum(len(text) for texts in tokens[False] for text in texts)
    n_ahead, n_wasted = (sum(getattr(one, of) for one in stats[True]) for of in ("rows_ahead", "rows_wasted"))
    return {
        "load": name, "tokens": n_tokens, "tokens/s plain": n_tokens / median(seconds[False]),
        "tokens/s ahead": n_tokens / median(seconds[True]),
        "gain": median(off / on for off, on in zip(seconds[False], seconds[True], strict=True)),
        "steps": sum(one.steps for one in stats[True]) / sum(one.steps for one in stats[False]),
        "fed ahead": n_ahead, "accepted": (n_ahead - n_wasted) / max(1, n_ahead),
    }  # fmt: skip


def cost_of_rows(model: LanguageModel, seconds: float, clock: Clock) -> dict[int, float]:
    """A step by its rows, relative to one, each row as if it were alone."""
    found: dict[int, float] = {}
    with model.session(n_ctx=min(model.config.n_ctx, 512)) as session:
        session.feed([1] * 128)
        for rows in ROWS:
            took, until = [], clock() + seconds
            while clock() < until or len(took) < 3:
                began = clock()
                session.advance({0: [1] * rows}, {0: rows}, alone=True)
                took.append(clock() - began)
                session.truncate(0, 128)
            found[rows] = median(took)
    return {rows: took / found[1] for rows, took in found.items()}
