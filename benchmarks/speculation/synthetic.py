"""Speed by the share of guesses that are right, beside llama-server: ``--spec-synth-rates`` there, here a drafter that
knows the text and is wrong as often as it should be.

Both write one token over and over, which a bias forces, and guess `MOST` tokens in every step. So drafts cost nothing
and are the same on both sides; what is compared is the step of several rows, the choosing and the taking back.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Self

import attrs
import httpx2 as httpx
from serving.servers import Server, llama_server

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.texts.drafting import NOBODY, Drafting
from sis_core.texts.language_model import LanguageModel
from speculation.loads import Replays
from speculation.measuring import Way, run

MOST = 4  # tokens of a guess
RATES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)  # share of guessed tokens that are right where those before were
N_PROMPT = 64


@attrs.frozen
class Synthetic(Drafter):
    """Guesses a token, and each time is wrong with a certain chance."""

    name = "synthetic"
    token: int = 0
    rate: float = 1.0

    def start(self, context: DraftContext) -> DraftState:
        return _Guessing(self, random.Random(1))


class _Guessing(DraftState):
    def __init__(self, options: Synthetic, chance: random.Random) -> None:
        self.options, self.chance = options, chance

    def propose(self, k: int) -> list[int]:
        token, rate = self.options.token, self.options.rate
        return [token if self.chance.random() < rate else token + 1 for _ in range(min(k, MOST))]

    def accept(self, token: int) -> None: ...

    def copy(self) -> Self:
        return type(self)(self.options, random.Random(1))


def ours(model: LanguageModel, token: int, n_tokens: int, rate: float | None) -> float:
    """Tokens a second; ``rate`` None for no guesses."""
    request = model.request(
        [token] * N_PROMPT, samplers=[Replays((token,) * n_tokens)], max_tokens=n_tokens, ignore_end=True, seed=1
    )
    drafting = NOBODY if rate is None else Drafting((Synthetic(token, rate),))
    return n_tokens / run(model, Way([request], drafting)).seconds


def theirs(program: Path, model: Path, token: int, n_tokens: int, rate: float | None, n_threads: int) -> dict[str, Any]:
    """The ``timings`` of llama-server."""
    server = llama_server(program, model, n_threads=n_threads, n_ctx=2048, cache=2048, n_slots=1)
    if rate is not None:
        rates = ",".join(f"{rate ** (i + 1):.6f}" for i in range(MOST))
        guessing = ("--spec-type", "ngram-mod", "--spec-ngram-mod-n-match", "16", "--spec-ngram-mod-n-min",
                    "1", "--spec-ngram-mod-n-max", str(MOST), "--spec-synth-rates", rates)  # fmt: skip
        server = Server(server.name, [*server.command, *guessing])
    body = {"prompt": [token] * N_PROMPT, "n_predict": n_tokens, "ignore_eos": True, "temperature": 0.0, "seed": 1,
            "logit_bias": [[token, 1000.0]], "cache_prompt": False}  # fmt: skip
    with server.running() as address:
        answers = [httpx.post(f"{address}/completion", json=body, timeout=300).json()["timings"] for _ in range(3)]
    return max(answers, key=lambda timings: timings["predicted_per_second"])


def curve(
    model: LanguageModel, path: Path, program: Path | None, n_threads: int, n_tokens: int = 128
) -> list[dict[str, Any]]:
    """A row for each rate: the gain over no guesses, here and there."""
    token = model.tokenize("a", add_special=False)[0]
    rows: list[dict[str, Any]] = []
    plain: dict[str, float] = {}
    for rate in (None, *RATES):
        speeds = {"sis": max(ours(model, token, n_tokens, rate) for _ in range(3))}
        row: dict[str, Any] = {"rate": "plain" if rate is None else rate}
        if program is not None:
            timings = theirs(program, path, token, n_tokens, rate, n_threads)
            speeds["llama.cpp"] = timings["predicted_per_second"]
            if n_drafted := timings.get("draft_n"):
                row["their share"] = timings["draft_n_accepted"] / n_drafted
        plain = plain or speeds
        for side, speed in speeds.items():
            row |= {f"{side} tokens/s": speed, f"{side} gain": speed / plain[side]}
        rows.append(row)
    return rows
