"""Every weight format: sis beside llama.cpp and its fork, in turn, medians, and the ratio to the better of them.

    python benchmarks/formats.py --models FOLDER --peer llama.cpp=/path/to/bin --peer ik_llama.cpp=/path/to/bin
    python benchmarks/formats.py --models FOLDER --peer … --quick --json out.json
    python benchmarks/formats.py --examples

See `benchmarks/README.md` for what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from random_model import write_model
from shapes import SHAPES, Shape
from speed.children import PythonSide, Run, Side, play
from speed.machine import Neighbours, describe, pin
from speed.plan import Contest, File
from speed.programs import ProgramsSide
from speed.report import Limits, Line, as_json, lines, missing
from speed.report import describe as described

FIRST = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_XS", "IQ4_NL", "MXFP4", "Q3_K", "BF16")
MORE = ("Q4_1", "Q5_0", "Q5_1", "Q2_K", "TQ1_0", "TQ2_0", "NVFP4", "F16")
COLUMNS = {"first512": "first prompt", "prompt512": "third prompt", "decode0": "decode", "batch8": "8 sequences"}
GOAL = 0.97  # of the better peer
QUICK_LAYERS = 8
NOTHING = Limits({}, {}, {})


@dataclass(frozen=True)
class Shaped(File):
    """TinyLlama's shape with every matrix in one type, or with fewer layers than it has."""

    layers: int = 22

    @property
    def shape(self) -> Shape:
        return SHAPES["tinyllama-1.1b"].with_layers(self.layers)

    def write(self, folder: Path) -> Path:
        path = folder / f"tinyllama-{self.name.lower()}-{self.layers}l.gguf"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            write_model(self.shape, part, file_type=self.name, pure=True)
            os.replace(part, path)
        return path


@dataclass(frozen=True)
class Given(File):
    """A file that is there."""

    path: Path = Path()

    def write(self, folder: Path) -> Path:
        return self.path


def contests(formats: list[str], real: list[Path], layers: int) -> list[Contest]:
    """All columns of each format and file."""
    files = [Shaped(name, layers) for name in formats] + [Given(path.stem, path) for path in real]
    return [Contest(file, tuple(COLUMNS)) for file in files]


def table(found: list[Line]) -> str:
    """One row a format: tokens a second of sis, and how many times those of the better peer; Markdown."""
    head = ["format", *(f"{title}: sis | of the better peer" for title in COLUMNS.values()), "first / third", "noisy"]
    text = [f"| {' | '.join(head)} |", "| --- " * (3 + 2 * len(COLUMNS)) + "|"]
    for name in dict.fromkeys(line.contest for line in found):
        mine = {line.row: line for line in found if line.contest == name}
        cells = [name]
        for row in COLUMNS:
            cells += _cells(mine[row])
        early, late = mine["first512"].ours, mine["prompt512"].ours
        cells.append(f"{early.median / late.median:.2f}" if early and late else "–")
        cells.append(f"{sum(line.noisy for line in mine.values())} of {sum(line.n for line in mine.values())}")
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _cells(line: Line) -> list[str]:
    ours = f"{line.ours.median:,.0f}" if line.ours else "–"
    if line.ratio is None:
        return [ours, "–"]
    return [ours, f"{line.ratio:.2f} ({line.best}){'' if line.ratio >= GOAL else ' ✗'}"]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="the folder of the files; they are made there once")
    parser.add_argument("--peer", type=_peer, metavar="NAME=FOLDER", action="append", default=[],
                        help="a folder with llama-bench and llama-batched-bench; give it for each")  # fmt: skip
    parser.add_argument("--formats", type=_formats, default=list(FIRST),
                        help=f"names with commas between, 'first' ({', '.join(FIRST)}), 'more' or 'all'")  # fmt: skip
    parser.add_argument("--real", type=Path, action="append", default=[], help="a file to measure too")
    parser.add_argument("--layers", type=int, help="of TinyLlama's 22; other numbers are said above the table")
    parser.add_argument("--quick", action="store_true", help=f"one round, and {QUICK_LAYERS} layers")
    parser.add_argument("--rounds", type=int, help="5, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[],
                        help="processors that all sides are pinned to, such as 0,1")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one process")
    parser.add_argument("--json", type=Path, help="all figures, written after every process")
    parser.add_argument("--examples", action="store_true", help="decoding in the formats of examples/ instead")
    options = parser.parse_args()
    options.layers = options.layers or (QUICK_LAYERS if options.quick else SHAPES["tinyllama-1.1b"].n_layer)
    options.rounds = options.rounds or (1 if options.quick else 5)
    if not options.models and not options.examples:
        parser.error("--models FOLDER says where the files are made")
    return options


def _peer(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not found or not os.access(Path(folder) / "llama-bench", os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is not like llama.cpp=FOLDER, with llama-bench in the folder")
    return name, Path(folder)


def _formats(text: str) -> list[str]:
    groups = {"first": FIRST, "more": MORE, "all": FIRST + MORE}
    names = list(groups.get(text, text.upper().split(",")))
    if unknown := [name for name in names if name not in FIRST + MORE]:
        raise argparse.ArgumentTypeError(f"no format {unknown[0]!r}; there are {', '.join(FIRST + MORE)}")
    return names


def main() -> None:
    options = parse_options()
    pin(options.cpus)
    if options.examples:
        from example_formats import main as measure_examples

        measure_examples(options.threads, options.rounds)
        return
    chosen = contests(options.formats, options.real, options.layers)
    machine = describe(options.threads, options.cpus)
    runs: list[Run] = []
    paths = {}
    for contest in chosen:
        _say(f"file {contest.file.name}")
        paths[contest.file.name] = contest.file.write(options.models)
    sides: list[Side] = [PythonSide("sis", sys.executable, options.threads, options.timeout)]
    sides += [ProgramsSide(name, folder, options.threads, options.timeout) for name, folder in options.peer]

    def after(run: Run) -> None:
        figures = ", ".join(f"{row} {reading['value']:.4g}" for row, reading in run["readings"].items())
        _say(f"round {run['round'] + 1}, {run['contest']}, {run['side']}: {run['error'] or figures}")
        if options.json:
            state: dict[str, Any] = {"machine": machine, "layers": options.layers, "runs": runs}
            part = options.json.with_suffix(".part")
            part.write_text(json.dumps(state | {"table": as_json(lines(chosen, runs, NOTHING))}, indent=1) + "\n")
            os.replace(part, options.json)

    play(
        chosen, lambda contest: sides, paths, Neighbours(options.cpus), runs,
        rounds=options.rounds, minutes=float("inf"), begin_round=lambda: None, after=after,
    )  # fmt: skip
    found = lines(chosen, runs, NOTHING)
    print(described(machine), f"TinyLlama's shape, {options.layers} layers; medians of {options.rounds}", sep="\n")
    print("", table(found), *(f"- {gap}" for gap in missing(chosen, runs)), sep="\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
