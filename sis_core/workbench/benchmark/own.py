"""Timing sis itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from sis_core.loading.model import Model
from sis_core.texts.session import CHUNK, Session
from sis_core.workbench.benchmark.cases import Case

WARM_UP = 32  # tokens: enough for every buffer and thread to exist


class Runner:
    """Runs cases on one model, with random tokens: speed does not depend on what a text says.

    Nothing is sampled, as in llama-bench.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        self.model = model
        self._random = np.random.default_rng(seed)

    def warm_up(self, case: Case) -> None:
        """A short run of the same shape, not timed."""
        short = Case(case.kind, min(case.n, WARM_UP), case.batch, min(case.depth, WARM_UP))
        self.sample(short)

    def sample(self, case: Case) -> float:
        """Tokens a second of one run in a fresh session."""
        room = case.batch * (case.n_ctx + 64)
        with Session(self.model, n_ctx=case.n_ctx, max_tokens=room) as session:
            sequences = range(case.batch)
            for sequence in sequences:
                if case.depth:
                    session.feed(self._tokens(case.depth), sequence)
            tokens = {sequence: self._tokens(case.n) for sequence in sequences}
            started = time.perf_counter()
            if case.kind == "pp":
                self._prompt(session, tokens)
            else:
                self._generate(session, tokens, case.n)
            return case.n_tokens / (time.perf_counter() - started)

    def _tokens(self, n: int) -> list[int]:
        found: list[int] = self._random.integers(0, self.model.config.n_vocab, n).tolist()
        return found

    def _prompt(self, session: Session, tokens: dict[int, list[int]]) -> None:
        """Every sequence's prompt; the steps of 512 rows are shared as they fill."""
        session.step(tokens)

    def _generate(self, session: Session, tokens: dict[int, list[int]], n: int) -> None:
        """One token of every sequence a step."""
        sequences: Sequence[int] = list(tokens)
        for start in range(0, len(sequences), CHUNK):
            group = sequences[start : start + CHUNK]
            for i in range(n):
                session.advance({s: [tokens[s][i]] for s in group}, dict.fromkeys(group, 1))
