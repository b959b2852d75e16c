"""sis against llama.cpp: the same files, threads and processors, in turn, medians, and the ratio of each row.

    python benchmarks/native_bench.py --models FOLDER --peer /path/to/other/python --cpus 0,1
    python benchmarks/native_bench.py --models FOLDER --peer … --full --minutes 25 --json out.json --plot out.svg

See `benchmarks/README.md` for what each row means.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from speed.children import Run, play, sides
from speed.limits import Work, bandwidth, peak, units
from speed.machine import Neighbours, describe, pin
from speed.plan import FILES, LABELS, RUNG_GOALS, contests
from speed.report import Limits, as_json, draw, lines, markdown

SETTINGS = ("processor", "threads", "cpus", "clock")  # figures with others do not mix


def _listed(known: Any) -> Any:
    """A type for argparse: names with commas between them, or ``all``."""

    def parse(text: str) -> list[str]:
        names = list(known) if text == "all" else [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; there are {', '.join(known)}")
        return names

    return parse


def _rung(text: str) -> tuple[str, str]:
    isa, found, python = text.partition("=")
    if not found or isa not in RUNG_GOALS:
        raise argparse.ArgumentTypeError(f"{text!r} is not like avx2=PYTHON, with one of {', '.join(RUNG_GOALS)}")
    return isa, python


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder of the files; they are made there once")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--llama-bench", metavar="PROGRAM", help="a llama-bench, as another peer")
    parser.add_argument("--rung", metavar="ISA=PYTHON", type=_rung, action="append", default=[],
                        help="also hold a lower instruction set against a peer built for no better one")  # fmt: skip
    parser.add_argument("--files", type=_listed(FILES), default=[], help="some of the files, or all")
    parser.add_argument("--rows", type=_listed(LABELS), default=[], help="some of the rows, or all")
    table = parser.add_mutually_exclusive_group()
    table.add_argument("--full", action="store_true", help="every row that has a goal; else a few")
    table.add_argument("--experts", action="store_true", help="the rows of models with experts, cut to four layers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[],
                        help="processors that both sides are pinned to, such as 0,1")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no new round that would end later")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one process")
    parser.add_argument("--cpu", action="store_true", help="processor time: for a busy machine, with --threads 1")
    parser.add_argument("--json", type=Path, help="all figures, written after every process")
    parser.add_argument("--resume", action="store_true", help="go on with the figures in the --json file")
    parser.add_argument("--plot", type=Path, help="an .svg or .png file: the ratios as bars")
    options = parser.parse_args()
    if options.resume and not options.json:
        parser.error("--resume goes on with a --json file: name it")
    if options.cpu and (options.threads != 1 or options.llama_bench):
        parser.error("--cpu: threads that wait for each other count as well; --threads 1, and no --llama-bench")
    return options


def main() -> None:
    options = parse_options()
    pin(options.cpus)
    rungs = dict(options.rung)
    chosen = contests(options.files, options.rows, options.full, list(rungs), experts=options.experts)
    state: dict[str, Any] = {
        "machine": describe(options.threads, options.cpus, options.cpu),
        "read": {},
        "macs": {},
        "no_limit": {},
        "runs": [],
    }
    if options.resume and options.json.exists():
        before = json.loads(options.json.read_text("utf-8"))
        if any(before["machine"][key] != state["machine"][key] for key in SETTINGS):
            sys.exit(f"--resume: {options.json} has figures of other {', '.join(SETTINGS)}; give another --json file")
        state = before
    paths = {}
    for contest in chosen:
        _say(f"file {contest.file.name}")
        paths[contest.file.name] = contest.file.write(options.models)
    work = {name: Work.of(path) for name, path in paths.items()}

    def limits() -> Limits:
        return Limits(state["read"], state["macs"], work)

    def measure_limits() -> None:
        _say("limits")
        found = {("read", name): bandwidth(options.threads, max(1, w.n_bytes >> 20)) for name, w in work.items()}
        found |= {("macs", unit): peak(unit, options.threads) for unit in units()}
        for (kind, name), value in found.items():
            if isinstance(value, str):
                state["no_limit"][name] = value
            else:
                state[kind][name] = max(value, state[kind].get(name, 0.0))  # a limit is the best that was ever seen

    def after(run: Run) -> None:
        figures = ", ".join(f"{row} {reading['value']:.4g}" for row, reading in run["readings"].items())
        _say(f"round {run['round'] + 1}, {run['contest']}, {run['side']}: {run['error'] or figures}")
        save()

    def save() -> None:
        if options.json:
            found = as_json(lines(chosen, state["runs"], limits()))
            part = options.json.with_suffix(".part")
            part.write_text(json.dumps(state | {"table": found}, indent=1) + "\n", "utf-8")
            os.replace(part, options.json)

    done = play(
        chosen,
        lambda contest: sides(
            rungs[contest.isa] if contest.isa else options.peer,
            None if contest.isa else options.llama_bench,
            options.threads,
            options.timeout,
            options.cpu,
        ),
        paths,
        Neighbours(options.cpus),
        state["runs"],
        rounds=options.rounds,
        minutes=options.minutes,
        begin_round=measure_limits,
        after=after,
    )
    if done < options.rounds:
        _say(f"{done} of {options.rounds} rounds fit into {options.minutes:g} minutes")
    found = lines(chosen, state["runs"], limits())
    print(markdown(state, chosen, found, limits()))
    save()
    if options.plot:
        draw(found, options.plot)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
