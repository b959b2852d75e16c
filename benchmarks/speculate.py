"""What guessing ahead gains: the same texts with `--speculate off` and `auto`, in turn, as ratios.

    python benchmarks/random_model.py tinyllama-1.1b tinyllama.gguf --type Q4_0
    python benchmarks/speculate.py --model SmolLM2-135M-Instruct.gguf --shape tinyllama.gguf --repository ~/src/repo

Loads: `edits` replays changes of files from a git history on the shape of a real model: the prompt is the file as it
was, and a sampler says the file as it became, so that the acceptance is the edits' own. `copy`, `rewrite`, `json`,
`chat` and `story` are texts that --model writes itself. Only figures come out of a repository. Every text is compared:
a difference between the two ends the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from statistics import median
from typing import Any, NamedTuple

import attrs
import numpy as np

import sis_core
from sis_core.arrays import F32
from sis_core.errors import SisError
from sis_core.sampler import Sampler, SamplerContext, SamplerState, keep
from sis_core.texts.drafting import make_drafting
from sis_core.texts.request import Request
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import SessionStats

PARAGRAPH = (
    "The keeper of the lighthouse at Saint Anne rose every morning at four to wind the clockwork that turned the lamp. "
    "Her name was Margaret Holloway, and she had kept the light for thirty-one years without missing a single night. "
    "On the first of November a storm broke the glass of the lantern room, and she held a blanket against the wind "
    "until the glazier came from the village in the early afternoon."
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email address": {"type": "string", "maxLength": 30},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 24},
                "city": {"type": "string", "maxLength": 16},
                "postal code": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["street", "city", "postal code"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "email address", "address"],
    "additionalProperties": False,
}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": (f"Repeat this text word for word.\n\n{PARAGRAPH}", {"temperature": 0.0}),
    "rewrite": (f"Repeat this text, but call the keeper Helen Marsh.\n\n{PARAGRAPH}", {"temperature": 0.0}),
    "json": ("Invent a person, as JSON.", {"temperature": 0.7, "schema": SCHEMA, "compact_json": True}),
    "chat": ("Why is the sky blue, and why is it red in the evening?", {"temperature": 0.7}),
    "story": ("Tell a story about a hen and a lighthouse.", {"temperature": 0.7}),
}
ROWS = (1, 2, 3, 4, 5, 8, 12, 16)


class Run(NamedTuple):
    """What became of one text."""

    tokens: tuple[int | None, ...]
    seconds: float
    stats: SessionStats


@attrs.frozen
class Replays(Sampler):
    """Says a text that somebody wrote."""

    name = "replays"
    order = 900
    tokens: tuple[int, ...] = ()

    def start(self, context: SamplerContext) -> SamplerState:
        return _Replaying(self.tokens)


class _Replaying(SamplerState):
    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens, self.at = tokens, 0

    def apply(self, logits: F32) -> None:
        keep(logits, np.array([self.tokens[self.at]]))

    def accept(self, token: int) -> None:
        self.at += 1


def edits(repository: str, n: int, least: int = 1500, most: int = 6000) -> Iterator[tuple[str, str]]:
    """Files before and after a change of at most a third of their lines, the newest first."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", repository, *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout

    found = 0
    for line in git("log", "--no-merges", "--format=%H", "-n", "2000").split():
        for stat in git("show", "--numstat", "--diff-filter=M", "--format=", line).splitlines():
            added, removed, path = stat.split("\t")
            if "-" in (added, removed) or not 2 <= int(added) + int(removed) <= 40:
                continue
            old, new = git("show", f"{line}~:{path}"), git("show", f"{line}:{path}")
            changed = int(added) + int(removed)
            if least <= len(new) <= most and least <= len(old) <= most and 3 * changed <= 2 * new.count("\n"):
                yield old, new
                found += 1
                break
        if found == n:
            return


def run(model: sis_core.LanguageModel, request: Request, speculate: str) -> Run:
    """One text; the prompt is not timed."""
    drafting = make_drafting(model.registry, speculate)
    session = model.session(n_ctx=min(model.config.n_ctx, len(request.prompt) + (request.max_tokens or 0)))
    with Scheduler(session, reuse=False, drafting=drafting) as scheduler:
        scheduler.add(request)
        tokens, began = [], 0.0
        with closing(scheduler.run()) as pieces:
            for piece in pieces:
                if piece.error is not None:
                    raise piece.error
                began = began or time.perf_counter()
                tokens.append(piece.token)
        return Run(tuple(tokens), time.perf_counter() - began, session.stats)


def compare(name: str, model: sis_core.LanguageModel, requests: Sequence[Request], rounds: int) -> dict[str, Any]:
    """Both ways in turn; the ratios are medians over rounds."""
    times: dict[str, list[float]] = {"off": [], "auto": []}
    stats: dict[str, list[SessionStats]] = {}
    n_tokens = 0
    for i in range(rounds):
        ways = ["off", "auto"] if i % 2 == 0 else ["auto", "off"]
        found = {way: [run(model, request, way) for request in requests] for way in ways}
        if [one.tokens for one in found["off"]] != [one.tokens for one in found["auto"]]:
            raise SisError("guessing changed a text", where=name)
        n_tokens = sum(len(one.tokens) for one in found["off"])
        for way in ways:
            times[way].append(sum(one.seconds for one in found[way]))
            stats[way] = [one.stats for one in found[way]]
    ahead, wasted = (sum(getattr(one, of) for one in stats["auto"]) for of in ("rows_ahead", "rows_wasted"))
    steps = {way: sum(one.steps for one in stats[way]) for way in stats}
    return {
        "load": name, "tokens": n_tokens, "tokens/s off": n_tokens / median(times["off"]),
        "tokens/s auto": n_tokens / median(times["auto"]),
        "gain": median(off / auto for off, auto in zip(times["off"], times["auto"], strict=True)),
        "steps": steps["auto"] / steps["off"], "fed ahead": ahead, "accepted": (ahead - wasted) / max(1, ahead),
    }  # fmt: skip


def cost_of_rows(model: sis_core.LanguageModel, seconds: float = 1.0) -> dict[int, float]:
    """A step by its rows, relative to one, each row as if it were alone."""
    found: dict[int, float] = {}
    with model.session(n_ctx=min(model.config.n_ctx, 512)) as session:
        session.feed([1] * 128)
        for rows in ROWS:
            took, until = [], time.perf_counter() + seconds
            while time.perf_counter() < until or len(took) < 3:
                began = time.perf_counter()
                session.advance({0: [1] * rows}, {0: rows}, alone=True)
                took.append(time.perf_counter() - began)
                session.truncate(0, 128)
            found[rows] = median(took)
    return {rows: took / found[1] for rows, took in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="a chat model, which writes the texts")
    parser.add_argument("--shape", help="a file of the shape on which edits are replayed")
    parser.add_argument("--repository", default=".", help="whose history has the edits")
    parser.add_argument("--edits", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", help="write the figures there too")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    costs: dict[str, dict[int, float]] = {}
    if given.model:
        with sis_core.load(given.model, n_ctx=2048, n_threads=given.threads, gradual=False) as model:
            costs["model"] = cost_of_rows(model)
            chat = model.chat_format()
            for name, (question, options) in ASKED.items():
                prompt = [t for s in chat.render([{"role": "user", "content": question}]).segments for t in s.tokens]
                request = model.request(prompt, seed=1, max_tokens=given.max_tokens, **options)
                rows.append(compare(name, model, [request], given.rounds))
            encode = model.tokenize
            changes = [(encode(old), encode(new)) for old, new in edits(given.repository, given.edits)]
    if given.shape and given.model:
        with sis_core.load(given.shape, n_ctx=2048, n_threads=given.threads, gradual=False) as model:
            costs["shape"] = cost_of_rows(model)
            n_vocab = model.config.n_vocab
            requests = []
            for old, new in changes:
                before, after = [t % n_vocab for t in old[:900]], [t % n_vocab for t in new[:900]]
                says = Replays(tuple(after[: given.max_tokens]))
                requests.append(
                    model.request(before, samplers=[says], seed=1, max_tokens=len(says.tokens), ignore_end=True)
                )
            rows.append(compare("edits", model, requests, given.rounds))
    for name, cost in costs.items():
        print(f"c(k), {name}: " + ", ".join(f"{k} → {c:.2f}" for k, c in cost.items()))
    for row in rows:
        print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"cost": costs, "loads": rows}, file, indent=1)


if __name__ == "__main__":
    main()
