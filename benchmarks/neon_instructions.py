"""Instructions that the ARM kernels execute for each weight (and row), counted under emulation, beside llama.cpp's.

    python benchmarks/neon_instructions.py [--json] [--formats Q4_0,F16] [--rows 1,64]

Emulated time says nothing about a processor; executed instructions do, as far as they go. Each figure is the difference
between two runs that multiply the same matrix a different number of times, so that start, packing and the rounding of
activations drop out. Beside GGUF's types stand the tiles that other layouts are packed into. Needs ziglang and QEMU's
emulator with plugins (Debian: qemu-user). The figures of llama.cpp are those of ggml 0.25.3 through its own backend and
buffers, counted in the same way by `arm/ggml_linear.c` (one thread, K = 2048, clang 22 -O3; of Q4_0, Q8_0, Q4_K, Q6_K
and F16 with one row and 64 gcc 12 too, and the better of the two).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "native"))
from formats import FIRST, MORE  # noqa: E402
from zig import compile_units, zig  # noqa: E402

from sis_core.backends.native.abi import FORMATS, TILES_ALONE  # noqa: E402

HERE = ROOT / "benchmarks" / "arm"
TRIPLE = "aarch64-linux-musl"  # a static program needs no foreign libraries
RUNGS = ("portable", "neon", "neon_dotprod", "neon_fhm", "neon_i8mm")
N_ROWS, N_COLS = 256, 2048
NUMBERS = FORMATS | TILES_ALONE
SCALAR = ("-fno-vectorize", "-fno-slp-vectorize")

PEER = {"neon": 0, "neon_dotprod": 1, "neon_fhm": 1, "neon_i8mm": 2}  # of the following, that of a rung
LLAMA: dict[int, dict[str, tuple[float | None, float | None, float | None]]] = {  # None where not counted
    1: {
        "Q4_0": (0.775, 0.259, 0.314),
        "Q4_K": (0.754, 0.285, 0.331),
        "Q5_K": (None, 0.632, 0.655),
        "Q6_K": (0.914, 0.566, 0.668),
        "Q8_0": (0.665, 0.197, 0.244),
        "IQ4_XS": (None, None, 0.528),
        "IQ4_NL": (None, 0.322, 0.322),
        "MXFP4": (None, 0.384, 0.384),
        "Q3_K": (None, None, 0.990),
        "BF16": (None, None, 3.519),
        "Q4_1": (None, None, 0.728),
        "Q5_0": (None, None, 0.980),
        "Q5_1": (None, None, 1.137),
        "Q2_K": (None, None, 0.610),
        "TQ1_0": (None, None, 0.484),
        "TQ2_0": (None, None, 0.316),
        "NVFP4": (None, None, 0.799),
        "F16": (1.210, 0.368, 0.367),
    },
    8: {
        "Q4_0": (None, None, 0.132),
        "Q4_K": (None, 0.183, 0.165),
        "Q5_K": (None, 0.244, 0.229),
        "Q6_K": (None, None, 0.247),
        "Q8_0": (None, None, 0.106),
        "IQ4_XS": (None, None, 0.528),
        "IQ4_NL": (None, 0.153, 0.153),
        "MXFP4": (None, 0.169, 0.169),
        "Q3_K": (None, None, 0.990),
        "BF16": (None, None, 3.519),
        "Q4_1": (None, None, 0.469),
        "Q5_0": (None, None, 0.981),
        "Q5_1": (None, None, 1.137),
        "Q2_K": (None, None, 0.610),
        "TQ1_0": (None, None, 0.484),
        "TQ2_0": (None, None, 0.316),
        "NVFP4": (None, None, 0.800),
        "F16": (None, None, 0.366),
    },
    64: {
        "Q4_0": (0.773, 0.125, 0.102),
        "Q4_K": (0.753, 0.183, 0.165),
        "Q6_K": (0.913, 0.247, 0.223),
        "Q8_0": (0.663, 0.124, 0.106),
        "IQ4_NL": (None, 0.153, None),
        "MXFP4": (None, 0.169, None),
        "F16": (0.485, 0.225, 0.365),
    },
}


class Counter:
    """Builds the program and counts what it executes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.qemu = shutil.which("qemu-aarch64")
        if self.qemu is None:
            raise SystemExit("no qemu-aarch64 with plugins here (Debian: apt-get install qemu-user)")
        self.plugin = folder / "libcount.so"
        zig("x86_64-linux-gnu", "-O2", "-shared", "-fPIC", str(HERE / "count.c"), "-o", str(self.plugin),
            scratch=str(folder))  # fmt: skip
        self.programs = {flags: self.build(flags) for flags in ((), SCALAR)}

    def build(self, flags: tuple[str, ...]) -> Path:
        place = self.folder / ("scalar" if flags else "usual")
        place.mkdir()
        objects = compile_units(ROOT / "plugins" / "neon", TRIPLE, place, *flags)
        includes = [f"-I{ROOT / 'sis_core' / 'include'}", f"-I{ROOT / 'native'}"]
        zig(TRIPLE, "-O2", "-static", *includes, str(HERE / "one_linear.c"), *objects, "-o", str(place / "one_linear"),
            scratch=str(place))  # fmt: skip
        return place / "one_linear"

    def run(self, program: Path, isa: str, *arguments: int) -> int:
        """Instructions of one run."""
        command = [str(self.qemu), "-cpu", "max,pauth-impdef=on,sve=off", "-plugin", str(self.plugin), "-d", "plugin",
                   str(program), *map(str, arguments)]  # fmt: skip
        done = subprocess.run(command, env=os.environ | {"SIS_ISA": isa}, capture_output=True, text=True, check=True)
        return int(done.stderr.split()[-1])

    def count(self, isa: str, format: str, rows: int, flags: tuple[str, ...] = ()) -> float:
        """Instructions for each weight and row; with 0 rows, for each weight that is decoded."""
        few, many = (
            self.run(self.programs[flags], isa, NUMBERS[format], rows, N_ROWS, N_COLS, times) for times in (1, 3)
        )
        return (many - few) / (2 * N_ROWS * N_COLS * max(rows, 1))


def measure(counter: Counter, formats: list[str], rows: list[int]) -> list[dict[str, object]]:
    """A record for each number of rows and format."""
    found: list[dict[str, object]] = []
    for n in rows:
        for format in formats:
            counts = {isa: counter.count(isa, format, n) for isa in RUNGS}
            record: dict[str, object] = {"rows": n, "format": format, **counts}
            record["scalar"] = counter.count("portable", format, n, SCALAR)
            record["llama.cpp"] = LLAMA.get(n, {}).get(format)
            found.append(record)
    return found


def table(records: list[dict[str, object]]) -> str:
    """Markdown; in brackets the ratio to llama.cpp. What C takes is in the records alone."""
    heads = ["rows", "format", *RUNGS[1:], "llama.cpp"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for record in records:
        peer = record["llama.cpp"]
        cells = []
        for isa in RUNGS[1:]:
            other = peer[PEER[isa]] if isinstance(peer, tuple) else None
            cells.append(f"{record[isa]:.3f}{f' ({record[isa] / other:.2f})' if other else ''}")  # type: ignore[operator]
        cells.append(", ".join(f"{x:.3f}" if x else "–" for x in peer) if isinstance(peer, tuple) else "")
        lines.append(f"| {record['rows']} | {record['format']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join([*FIRST, *MORE, *TILES_ALONE]))
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sis-neon-") as folder:
        counter = Counter(Path(folder))
        records = measure(counter, options.formats.split(","), [int(n) for n in options.rows.split(",")])
    print(json.dumps(records, indent=1) if options.json else table(records))


if __name__ == "__main__":
    main()
