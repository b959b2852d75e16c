"""Mutates whole models past the container and asserts that each runs or is refused by a SisError.

    python tests/fuzz_models.py --count 30000 --out fuzz      # goes on where `fuzz` ends
    python tests/fuzz_models.py --only 4711                   # one case again, with its traceback
    python tests/fuzz_models.py --count 3000 --models experts gpt-oss

Seeds are the tiny models of every family in goldens/families, the same networks over other vocabularies, and models in
every format that can be written. One to three mutations change metadata, shapes, types, vocabulary or weights; a case
is then loaded by one of the backends in one way to keep its weights, its vocabulary used, and a text continued by a few
tokens. Another exception than a SisError, one that blames a plugin of ours, a warning of numpy's, a token without a
finite probability, a NaN in the weights that only one backend sees, and 10 seconds of computing are failures; so are a
crash and a hang, which the parent of the process sees. Failing files are saved.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from fuzz_gguf import TooSlowError, limit_memory, too_slow
from model_mutations import Mutator
from model_seeds import NAMES, Seeds

from sis_core.backend import BackendOptions
from sis_core.errors import SisError
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch, Output
from sis_core.testing.models import write_model
from sis_core.texts.language_model import LanguageModel

SECONDS = 10.0
"""Of computing, for one case."""
MEGABYTES = 1500
SILENCE = 180.0
"""Seconds of the clock after which a process that says nothing hangs."""
A_PROCESS = 1000
"""Cases that one process tries."""
TEXT = "he said: the 12 hens\n\tlay 345 eggs, <s> naïve 漢字 😀 \x00…</s>"
REACHED = "reached"


# --- Trying a case --------------------------------------------------------------------------------------------------


@frozen
class Way:
    """How a case is run."""

    backend: str | None
    options: BackendOptions
    degrade: bool
    n_prompt: int
    both: bool
    """What the first backend gives is compared with the reference."""

    @classmethod
    def draw(cls, random: random.Random) -> Way:
        options = BackendOptions(
            n_threads=random.choice((1, 1, 2)),
            pack=random.choice((None, True, False)),
            gradual=random.choice((None, True, False)),
            decode=random.choice((None, True, False)),
            batch_invariant=random.random() < 0.1,
            kv_type=random.choice(("f32", "f16", "f16", "bf16", "q8_0")),
        )
        return cls(
            random.choice(("numpy", None)),
            options,
            degrade=random.random() < 0.1,
            n_prompt=random.choice((1, 3, 3, 24)),
            both=random.random() < 0.2,
        )


class Stepping(LanguageModel):
    """A model that knows whether it has made a step."""

    stepped = False

    def step(self, batch: Batch, cache: Any) -> Output:
        found = super().step(batch, cache)
        self.stepped = True
        return found


class Wrong(Exception):  # noqa: N818 - a failure of what is tested, not of the test
    """What a model must not do."""


def run(path: Path, registry: Registry, way: Way, done: Sequence[str]) -> str:
    """Load and use a model; how far it came.

    Raises:
        Wrong: it did what no model may.
        Exception: anything else is a failure too.
    """
    stage = "load"
    model: Stepping | None = None
    try:
        model = open_model(
            Stepping, path, registry, backend=way.backend, options=way.options, degrade=way.degrade
        )  # fmt: skip
        model.on_error = "degrade" if way.degrade else "strict"
        prompt = _prompt(model, way)
        stage = "step"
        for piece in model.generate(prompt, max_tokens=3, seed=1, logprobs=1):
            if piece.token is not None and not math.isfinite(piece.logprob or 0.0):
                raise Wrong(f"token {piece.token} has the log probability {piece.logprob}")
        stage = "embed"
        if not np.isfinite(model.embed([prompt])).all():
            raise Wrong("the embedding is not finite")
        if way.both and not way.degrade:
            stage = "compare"
            _compare(model, prompt, exact=not any(step.startswith(("weights", "types")) for step in done))
        stage = "end"
    except SisError as refused:
        _check(refused)
        outcome = f"{REACHED}, then {type(refused).__name__}" if model is not None and model.stepped else "refused"
        return f"{outcome} at {stage}" if outcome == "refused" else outcome
    finally:
        if model is not None:
            model.close()
    return REACHED


def _prompt(model: Stepping, way: Way) -> list[int]:
    """Ids of a text, or the first ids where the vocabulary is refused."""
    try:
        ids = model.tokenize(TEXT)
        model.detokenize(ids)
    except SisError as refused:
        _check(refused)
        ids = []
    filled = [*ids, *range(way.n_prompt)][: way.n_prompt]
    return [min(token, model.config.n_vocab - 1) for token in filled]


def _check(refused: SisError) -> None:
    """A refusal has a place and one line, and is no plugin's exception in other words."""
    if not refused.where or "\n" in str(refused):
        raise Wrong(f"a refusal without a place, or of several lines: {refused!r}")
    if "tell its author" in refused.fix:
        raise Wrong(f"a plugin of ours fails: {refused}") from refused


def _compare(model: Stepping, prompt: list[int], *, exact: bool) -> None:
    """Wrong where one backend sees a NaN or an infinity, and another none; with ``exact``, where they differ."""
    with model.with_backend("numpy") as reference:
        found, wanted = model.logits(prompt), reference.logits(prompt)
    finite = bool(np.isfinite(found).all()), bool(np.isfinite(wanted).all())
    if finite == (True, False) and np.isnan(wanted).any():
        raise Wrong(f"{model.backend} gives numbers where the reference gives NaN")
    if exact and all(finite) and model.options.kv_type == "f32":
        scale = float(np.abs(wanted).max())
        difference = float(np.abs(found - wanted).max())
        if difference > 0.02 * scale + 1e-6:
            raise Wrong(f"{model.backend} differs by {difference:.3g} from the reference, whose largest is {scale:.3g}")


def attempt(mutator: Mutator, number: int, path: Path) -> dict[str, Any]:
    """One case: what came of it, for a line of JSON."""
    draft, done, rest = mutator.case(number)
    way = Way.draw(rest)
    path.write_bytes(draft.encoded())
    start = time.process_time()
    found: dict[str, Any] = {"case": number, "model": draft.name, "backend": way.backend or "native", "done": done}
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found["outcome"] = run(path, mutator.seeds.registry, way, done)
    except (Exception, TooSlowError) as failure:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        found |= {"outcome": "failed", "failure": f"{type(failure).__name__}: {failure}"[:500]}
        found["traceback"] = "".join(traceback.format_exception(failure))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return found | {"seconds": round(time.process_time() - start, 3)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log's warnings, and with the timer's signal."""
    logging.disable(logging.CRITICAL)
    old = signal.signal(signal.SIGVTALRM, too_slow)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, old)
        logging.disable(logging.NOTSET)


def try_cases(
    numbers: Sequence[int], seed: int, folder: Path, names: Sequence[str] = NAMES
) -> Iterator[dict[str, Any]]:
    """Try these cases in this process, and save what fails in ``folder``."""
    mutator = Mutator(Seeds(_registry()), seed, names)
    path = folder / f"case-{seed}-{numbers[0]}.gguf"
    with quiet():
        for number in numbers:
            found = attempt(mutator, number, path)
            if found["outcome"] == "failed":
                path.replace(folder / f"failure-{seed}-{number}.gguf")
            yield found
    path.unlink(missing_ok=True)


@cache
def _registry() -> Registry:
    return Registry.load()


# --- The program -----------------------------------------------------------------------------------------------------


def main() -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=30_000, help="cases (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness (%(default)s)")
    parser.add_argument("--models", nargs="*", default=[], metavar="WORD", help="only seeds whose names have this word")
    parser.add_argument("--out", type=Path, help="folder of outcomes and failures; what is there is not tried again")
    parser.add_argument("--only", type=int, metavar="CASE", help="try one case, and print what it does")
    parser.add_argument("--from", type=int, dest="start", help=argparse.SUPPRESS)  # a worker's part
    options = parser.parse_args()
    names = [name for name in NAMES if not options.models or any(word in name for word in options.models)]
    folder = options.out or Path(tempfile.mkdtemp(prefix="sis-fuzz-models-"))
    folder.mkdir(exist_ok=True)
    if options.only is not None:
        (found,) = try_cases([options.only], options.seed, folder, names)
        print(found.pop("traceback", ""), json.dumps(found, indent=2), sep="\n")
        return found["outcome"] == "failed"
    if options.start is not None:
        return _work(options, names, folder)
    return _watch(options, folder)


def _work(options: argparse.Namespace, names: Sequence[str], folder: Path) -> int:
    """A worker: some cases, a line each."""
    _warm_up(folder)
    limit_memory(MEGABYTES)
    numbers = range(options.start, min(options.count, options.start + A_PROCESS))
    with (folder / "outcomes.jsonl").open("a") as out:
        for found in try_cases(numbers, options.seed, folder, names):
            out.write(json.dumps(found) + "\n")
            out.flush()
    return 0


def _warm_up(folder: Path) -> None:
    """Imports and starts what a first case would, before memory is limited."""
    path = write_model(folder / f"warm-{time.monotonic_ns()}.gguf")
    with open_model(LanguageModel, path, _registry()) as model:
        list(model.generate("he", max_tokens=1))
    path.unlink()


def _outcomes(folder: Path) -> list[dict[str, Any]]:
    path = folder / "outcomes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _watch(options: argparse.Namespace, folder: Path) -> int:
    """Let workers try all cases; a worker that ends or says nothing failed at the case after its last line."""
    while (next_case := len(_outcomes(folder))) < options.count:
        arguments = ["--count", options.count, "--seed", options.seed, "--out", folder, "--from", next_case]
        words = ["--models", *options.models] if options.models else []
        worker = subprocess.Popen([sys.executable, __file__, *map(str, arguments), *words])
        how = _follow(worker, folder / "outcomes.jsonl")
        if how:
            found = {"case": len(_outcomes(folder)), "model": "?", "backend": "?", "done": [], "outcome": "failed"}
            with (folder / "outcomes.jsonl").open("a") as out:
                out.write(json.dumps(found | {"failure": how, "seconds": 0}) + "\n")
        print(summary(_outcomes(folder)), flush=True)
    outcomes = _outcomes(folder)
    print(summary(outcomes, details=True))
    print(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB, {folder}")
    return int(bool(failures(outcomes)) or reached(outcomes) < 0.15)


def _follow(worker: subprocess.Popen[bytes], path: Path) -> str:
    """Wait for a worker; how it failed, or nothing."""
    size, since = -1, time.monotonic()
    while True:
        try:
            code = worker.wait(timeout=1)
            return "" if code == 0 else f"the process ended with {code}"
        except subprocess.TimeoutExpired:
            pass
        now = path.stat().st_size if path.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > SILENCE:
            worker.kill()
            worker.wait()
            return f"nothing for {SILENCE:.0f} s"


def failures(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for found in outcomes if found["outcome"] == "failed"]


def reached(outcomes: Sequence[dict[str, Any]]) -> float:
    """The part of the cases that made a step."""
    return sum(found["outcome"].startswith(REACHED) for found in outcomes) / max(len(outcomes), 1)


def summary(outcomes: Sequence[dict[str, Any]], *, details: bool = False) -> str:
    """What came of the cases; with ``details``, by model too, and each failure."""
    counts = Counter(found["outcome"] for found in outcomes)
    text = f"{len(outcomes)} cases: {dict(counts.most_common())}; {100 * reached(outcomes):.1f} % made a step"
    if details:
        text += f"\nby model: {dict(sorted(Counter(found['model'] for found in outcomes).items()))}"
        slowest = max(outcomes, key=lambda found: found["seconds"])
        text += f"\nslowest: {slowest['seconds']} s, case {slowest['case']}"
        for found in failures(outcomes):
            text += f"\ncase {found['case']} ({found['model']}, {', '.join(found['done'])}): {found['failure']}"
    return text


if __name__ == "__main__":
    sys.exit(main())
