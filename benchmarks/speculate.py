"""What guessing ahead gains: the same texts one token a step and as `sis` writes them, in turn, as ratios.

    python benchmarks/random_model.py tinyllama-1.1b tinyllama.gguf --type Q4_0
    python benchmarks/speculate.py --model SmolLM2-135M-Instruct.gguf --shape tinyllama.gguf --repository ~/src/repo \\
        --llama-server bin/llama-server --json speculate.json

Parts, all that the given files allow or those of --parts: `edits` replays changes of files out of a git history on the
shape of a real model: the prompt is the file as it was, and a sampler says the file as it became, so that the
acceptance is the edits' own. `copy` (a paragraph, copied and edited), `json` (by a schema) and `plain` (chat and
stories) are texts that --model writes itself; `plain` also runs the built-in model and the shape, alone and eight at
once. `synthetic` is speed by acceptance, beside llama-server. Only figures come out of a repository. Every text is
compared: a difference between the two ways ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speculation.loads import BEGINNINGS, COPYING, JSON, PLAIN, Replays, edits, token_by_token
from speculation.measuring import Way, compare, cost_of_rows
from speculation.synthetic import curve

import sis_core
from sis_core.texts.drafting import NOBODY, make_drafting
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Request

PARTS = ("edits", "copy", "json", "plain", "synthetic")
MANY = 8  # texts at once
Rows = Iterator[dict[str, Any]]


class Program:
    """What was asked for."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.costs: dict[str, dict[int, float]] = {}
        self.clock = time.process_time if given.cpu else time.perf_counter

    def load(self, path: str | None, **options: Any) -> LanguageModel:
        n_ctx = None if path is None else 2048
        return sis_core.load(path, n_ctx=n_ctx, n_threads=self.given.threads, gradual=False, **options)

    def compare(
        self, name: str, model: LanguageModel, groups: Sequence[Sequence[Request]], rounds: int | None = None
    ) -> dict[str, Any]:
        """Groups of texts that run together."""
        auto = make_drafting(model.registry, self.given.speculate)
        plain = [Way([token_by_token(request) for request in group], NOBODY) for group in groups]
        return compare(
            name, model, plain, [Way(group, auto) for group in groups], rounds or self.given.rounds, self.clock
        )

    def asked(self, asked: dict[str, tuple[str, dict[str, Any]]]) -> Rows:
        """Answers of the chat model."""
        with self.load(self.given.model) as model:
            self.cost("model", model)
            for name, request in answers(model, asked, self.given.max_tokens).items():
                yield self.compare(name, model, [[request]])

    def cost(self, name: str, model: LanguageModel) -> None:
        if name not in self.costs:
            self.costs[name] = cost_of_rows(model, 1.0, self.clock)

    def edits(self) -> Rows:
        with self.load(self.given.model, backend="stub") as model:
            encode = model.tokenize
            changes = [(encode(old), encode(new)) for old, new in edits(self.given.repository, self.given.edits)]
        with self.load(self.given.shape) as model:
            self.cost("shape", model)
            n_vocab, requests = model.config.n_vocab, []
            for old, new in changes:
                before, after = [t % n_vocab for t in old[:900]], [t % n_vocab for t in new[:900]]
                says = Replays(tuple(after[: self.given.max_tokens]))
                requests.append(
                    model.request(before, samplers=[says], seed=1, max_tokens=len(says.tokens), ignore_end=True)
                )
            yield self.compare("edits", model, [[request] for request in requests])

    def copy(self) -> Rows:
        return self.asked(COPYING)

    def json(self) -> Rows:
        return self.asked(JSON)

    def plain(self) -> Rows:
        for name, path, n_tokens, rounds in self.plain_models():
            for n_texts in (1, MANY):
                # Several are invariant, so that guesses are made there: else they are not.
                with self.load(path, batch_invariant=n_texts > 1) as model:
                    loads: dict[str, list[Request]] = {"story": beginnings(model, n_texts, n_tokens)}
                    if name == "model":
                        loads = {
                            load: [answers(model, PLAIN, n_tokens, seed)[load] for seed in range(n_texts)]
                            for load in PLAIN
                        }
                    for load, requests in loads.items():
                        about = f"{load}, {name}" + (f", {n_texts} at once" if n_texts > 1 else "")
                        yield self.compare(about, model, [requests], rounds)

    def plain_models(self) -> Iterator[tuple[str, str | None, int, int]]:
        """Name, file, tokens of a text, rounds."""
        n_tokens, rounds = self.given.max_tokens, self.given.rounds
        yield "built in", None, 2 * n_tokens, 7 * rounds
        if self.given.model:
            yield "model", self.given.model, n_tokens, rounds
        if self.given.shape:
            yield "shape", self.given.shape, n_tokens // 4, rounds

    def synthetic(self) -> Rows:
        with self.load(self.given.model) as model:
            program = self.given.llama_server
            n_threads = self.given.threads or os.cpu_count() or 1
            yield from curve(model, Path(self.given.model), program, n_threads, self.given.max_tokens)


def answers(
    model: LanguageModel, asked: dict[str, tuple[str, dict[str, Any]]], n_tokens: int, seed: int = 1
) -> dict[str, Request]:
    """Requests as a chat makes them."""
    chat, found = model.chat_format(), {}
    for name, (question, options) in asked.items():
        rendered = chat.render([{"role": "user", "content": question}])
        prompt = [token for segment in rendered.segments for token in segment.tokens]
        found[name] = model.request(prompt, seed=seed, max_tokens=n_tokens, **options)
    return found


def beginnings(model: LanguageModel, n_texts: int, n_tokens: int) -> list[Request]:
    """Texts that nobody asked for."""
    options = {"max_tokens": n_tokens, "ignore_end": True, "temperature": 0.9}
    return [model.request(BEGINNINGS[i], seed=i, **options) for i in range(n_texts)]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table; rows of different parts have different columns."""
    columns: list[str] = []
    for row in rows:
        if list(row) != columns:
            columns = list(row)
            print("\n" + " | ".join(columns))
        print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="a chat model, which writes the texts")
    parser.add_argument("--shape", help="a file of the shape on which edits are replayed")
    parser.add_argument("--repository", default=".", help="whose history has the edits")
    parser.add_argument("--llama-server", type=Path, help="the program beside which the synthetic part runs")
    parser.add_argument("--parts", help=f"some of {', '.join(PARTS)}, with commas between")
    parser.add_argument("--speculate", default="auto", help="what is held against one token a step")
    parser.add_argument("--edits", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true", help="processor time of one thread: where it cannot be quiet")
    parser.add_argument("--json", help="write the figures there too")
    given = parser.parse_args()
    given.threads = 1 if given.cpu else given.threads
    possible = [part for part in PARTS if given.model and (part != "edits" or given.shape)] or ["plain"]
    parts = given.parts.split(",") if given.parts else possible
    if wrong := [part for part in parts if part not in possible]:
        parser.error(f"cannot run {', '.join(wrong)}: of {', '.join(PARTS)}, all but plain need --model, edits --shape")
    program = Program(given)
    rows: list[dict[str, Any]] = []
    for part in parts:
        began, measure = time.perf_counter(), getattr(program, part)
        rows += measure()
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    for name, cost in program.costs.items():
        print(f"c(k), {name}: " + ", ".join(f"{k} → {c:.2f}" for k, c in cost.items()))
    show(rows)
    if given.json:
        Path(given.json).write_text(json.dumps({"cost": program.costs, "loads": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
