"""Decoding in the formats of ``examples/`` beside Q4_0: what `formats.py --examples` measures.

The file of each has four layers of TinyLlama's shape and a small vocabulary; its matrices are some encoded rows
over and over, since only their bytes matter here. All are measured in one process, in turn.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from itertools import repeat
from pathlib import Path

from random_model import write_model
from shapes import SHAPES
from speed import course
from speed.ours import Sis

from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.weights import file_weight
from sis_core.registry import Registry

EXAMPLES = Path(__file__).parents[1] / "examples"
HOOK = "sis_register_quant_formats"
GOAL = 0.87
ROWS = 64  # that are encoded


def main(n_threads: int, rounds: int) -> None:
    """Write the files, measure them ``rounds`` times in turn, and print a table in Markdown."""
    registry = Registry.load(files=example_files())
    names = formats_of(registry)
    shape = replace(SHAPES["tinyllama-1.1b"], n_layer=4, n_vocab=2048)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "Q4_0.gguf"
        write_model(shape, plain, file_type="Q4_0", pure=True)
        files = {"Q4_0": plain}
        for name in names:
            files[name] = Path(folder) / f"{name}.gguf"
            write_in(plain, files[name], name, registry)
        speeds: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(rounds):
            for name, path in files.items():
                speeds[name].append(decoding(path, n_threads, registry))
        bytes_read = {name: speed_bytes(path) for name, path in files.items()}
    print(
        "| format | MB of the file | tokens/s | tokens/s per byte of file, of Q4_0's |",
        "| --- | ---: | ---: | ---: |",
        sep="\n",
    )
    base = statistics.median(speeds["Q4_0"]) * bytes_read["Q4_0"]
    for name, found in speeds.items():
        share = statistics.median(found) * bytes_read[name] / base
        verdict = "" if share >= GOAL else " ✗"
        print(f"| {name} | {bytes_read[name] / 1e6:.0f} | {statistics.median(found):.0f} | {share:.2f}{verdict} |")


def example_files() -> list[Path]:
    """The examples that bring formats in one file of Python, which needs no build."""
    return [path for path in sorted(EXAMPLES.glob("*/sis_*.py")) if HOOK in path.read_text("utf-8")]


def formats_of(registry: Registry) -> list[str]:
    """The formats that named files brought, and that can be written."""
    files = {plugin.name for plugin in registry.plugins if plugin.named}
    entries = registry.entries("quant_formats")
    return [entry.record.name for entry in entries if entry.plugin in files and entry.record.can_quantize]


def write_in(source: Path, target: Path, name: str, registry: Registry) -> None:
    """The model of ``source`` with every matrix in a format."""
    format = registry.get("quant_formats", name)
    with GGUFFile.open(source) as file:
        writer = GGUFWriter(target, file.metadata)
        for info in file.tensors.values():
            weight = file_weight(file, registry, info)
            if len(info.shape) != 2 or info.name == "token_embd.weight":
                writer.add_tensor(info.name, info.shape, info.type_name, [file.raw(info.name)])
                continue
            rows = format.quantize(weight.rows(0, ROWS).dequantize())
            writer.add_tensor(
                info.name, info.shape, format.name, repeat(rows, weight.n_rows // ROWS),
                n_bytes=weight.n_rows * format.row_bytes(weight.n_cols),
            )  # fmt: skip
        writer.write()


def speed_bytes(path: Path) -> int:
    """Bytes that decoding a token reads: of the matrices, without the table of the embedding."""
    with GGUFFile.open(path) as file:
        return sum(
            info.n_bytes for info in file.tensors.values() if len(info.shape) == 2 and info.name != "token_embd.weight"
        )


def decoding(path: Path, n_threads: int, registry: Registry) -> float:
    """Tokens a second."""
    engine = Sis(str(path), n_threads, 2 * course.SPARE, registry)
    try:
        engine.begin(1, course.SPARE)
        engine.feed(16)  # packs what waits
        return course.decode(engine, 0, 16)
    finally:
        engine.model.close()
