"""sis against llama.cpp: the same file, the same threads, in turn, medians, and the ratio of each row.

    python benchmarks/native_bench.py model.gguf --peer /path/to/other/python --rounds 3 --json out.json

``--peer`` is an interpreter with llama-cpp-python (`benchmarks/oracle_requirements.txt`); without it only sis is
measured. The peer runs with and without flash attention, and each row names the better of the two. Every measurement is
a process of its own, so that neither side finds the other's threads or caches; rounds alternate between the sides.
Rows: a prompt of 512 tokens, one token at depth 0 and at --deep, eight sequences at once.
SIS_ISA=avx2 measures a lower rung. On a machine that others use too, --cpu counts processor time instead
of time on the wall, which is fair with --threads 1 alone (threads that wait for each other count as well). Weights are
random or real: the arithmetic takes the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SEED_TOKENS = [(i * 7919 + 13) % 997 + 3 for i in range(4096)]
PROMPT, SEQUENCES = 512, 8
CLOCK = time.process_time if "--cpu" in sys.argv else time.perf_counter


def timed(run: Callable[[], object], n: int) -> float:
    """Seconds of the median of ``n`` runs."""
    times = []
    for _ in range(n):
        start = CLOCK()
        run()
        times.append(CLOCK() - start)
    return statistics.median(times)


def measure_sis(path: str, threads: int, n_ctx: int, deep: int) -> dict[str, float]:
    """Tokens per second of each row, and seconds to load."""
    from sis_core.backend import BackendOptions
    from sis_core.model import Model, open_model
    from sis_core.registry import Registry
    from sis_core.step import Batch

    start = time.perf_counter()
    options = BackendOptions(n_threads=threads)
    with open_model(Model, Path(path), Registry.load(), n_ctx=n_ctx, options=options) as model:
        cache = model.new_cache(n_ctx)
        model.step(Batch.of([1]), cache)
        found = {"load": time.perf_counter() - start}

        def prompt() -> None:
            cache.drop(0)
            model.step(Batch.of(SEED_TOKENS[:PROMPT]), cache)

        def token(n: int) -> None:
            rows = range(n)
            model.step(Batch([5] * n, [cache.length(s) for s in rows], rows, rows), cache)

        prompt()
        found["prompt 512"] = PROMPT / timed(prompt, 2)
        cache.truncate(0, 1)
        token(1)
        found["decode at 0"] = 1 / timed(lambda: token(1), 24)
        cache.drop(0)
        for at in range(0, deep, PROMPT):
            part = SEED_TOKENS[at : min(at + PROMPT, deep)]
            model.step(Batch.of(part, position=at, outputs=[]), cache)
        token(1)
        found[f"decode at {deep}"] = 1 / timed(lambda: token(1), 16)
        cache.drop(0)
        token(SEQUENCES)
        found["8 sequences"] = SEQUENCES / timed(lambda: token(SEQUENCES), 12)
    return found


def measure_peer(path: str, threads: int, n_ctx: int, deep: int, flash: bool) -> dict[str, float]:
    """The same with llama.cpp, through the functions of its C interface."""
    import llama_cpp as lib

    lib.llama_backend_init()
    start = time.perf_counter()
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, PROMPT, PROMPT
    params.n_seq_max, params.n_threads, params.n_threads_batch = SEQUENCES, threads, threads
    params.kv_unified = True
    params.flash_attn_type = 1 if flash else 0
    context = lib.llama_init_from_model(model, params)
    memory = lib.llama_get_memory(context)
    batch = lib.llama_batch_init(PROMPT, 0, 1)
    lengths = dict.fromkeys(range(SEQUENCES), 0)

    def decode(rows: list[tuple[int, int]], every: bool) -> None:
        batch.n_tokens = len(rows)
        for i, (token, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, lengths[sequence], 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = every or i == len(rows) - 1
            lengths[sequence] += 1
        if lib.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        lib.llama_get_logits(context)

    def clear() -> None:
        lib.llama_memory_clear(memory, True)
        lengths.update(dict.fromkeys(lengths, 0))

    decode([(1, 0)], True)
    found = {"load": time.perf_counter() - start}

    def prompt() -> None:
        clear()
        decode([(t, 0) for t in SEED_TOKENS[:PROMPT]], False)

    prompt()
    found["prompt 512"] = PROMPT / timed(prompt, 2)
    clear()
    decode([(1, 0)], True)
    decode([(5, 0)], True)
    found["decode at 0"] = 1 / timed(lambda: decode([(5, 0)], True), 24)
    clear()
    for at in range(0, deep, PROMPT):
        decode([(t, 0) for t in SEED_TOKENS[at : min(at + PROMPT, deep)]], False)
    decode([(5, 0)], True)
    found[f"decode at {deep}"] = 1 / timed(lambda: decode([(5, 0)], True), 16)
    clear()
    rows = [(5, s) for s in range(SEQUENCES)]
    decode(rows, True)
    found["8 sequences"] = SEQUENCES / timed(lambda: decode(rows, True), 12)
    return found


def child(python: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [python, __file__, options.model, "--side", side, "--threads", str(options.threads),
               "--ctx", str(options.ctx), "--deep", str(options.deep), *(["--cpu"] if options.cpu else [])]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ctx", type=int, default=1280)
    parser.add_argument("--deep", type=int, default=1024, help="the depth of the deep row")
    parser.add_argument("--cpu", action="store_true", help="processor time: for a busy machine, with --threads 1")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--side", choices=["sis", "flash", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.model, options.threads, options.ctx, options.deep)
    if options.side:
        found = measure_sis(*sizes) if options.side == "sis" else measure_peer(*sizes, options.side == "flash")
        print(json.dumps(found))
        return
    sides = ["sis", "flash", "plain"] if options.peer else ["sis"]
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            figures[side].append(child(sys.executable if side == "sis" else options.peer, side, options))
    clock = "processor" if options.cpu else "wall"
    what = f"{Path(options.model).name}, {options.threads} threads, {clock} time"
    print(f"{what}, median of {options.rounds} rounds (lowest to highest)\n")
    print("| work | sis | llama.cpp | its flag | ratio |\n| --- | --- | --- | --- | --- |")
    for row in figures["sis"][0]:
        print(table_row(row, {side: [run[row] for run in runs] for side, runs in figures.items()}))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def table_row(row: str, values: dict[str, list[float]]) -> str:
    """One row of the table: tokens per second, or seconds for loading."""
    medians = {side: statistics.median(found) for side, found in values.items()}
    better = min if row == "load" else max
    text = f"| {row} | {medians['sis']:.2f} ({min(values['sis']):.2f} to {max(values['sis']):.2f}) |"
    if len(values) == 1:
        return f"{text} | | |"
    flag = better(("flash", "plain"), key=lambda side: medians[side])
    ratio = medians["sis"] / medians[flag] if row != "load" else medians[flag] / medians["sis"]
    spread = f"{min(values[flag]):.2f} to {max(values[flag]):.2f}"
    return f"{text} {medians[flag]:.2f} ({spread}) | {flag} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
