"""Decoding in the formats of ``examples/`` beside Q4_0: what `formats.py --examples` measures.

The file of each has four layers of TinyLlama's shape and a small vocabulary; its matrices are some encoded rows
over and over, since only their bytes matter here. Each takes turns with Q4_0 in short slices of one process: memory
that machines share is faster in one minute than in the next.
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
SLICE = 0.25  # seconds


def main(n_threads: int, rounds: int) -> None:
    """Write the files, measure each in ``rounds`` pairs of slices beside Q4_0, and print a table in Markdown."""
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
        bytes_read = {name: speed_bytes(path) for name, path in files.items()}
        print("| format | MB of the file | tokens/s | tokens/s per byte of file, of Q4_0's |")
        print("| --- | ---: | ---: | --- |", flush=True)
        base = opened(plain, n_threads, registry)
        for name in names:
            other = opened(files[name], n_threads, registry)
            pairs = in_turn(base, other, rounds)
            other.model.close()
            shares = [theirs / ours * bytes_read[name] / bytes_read["Q4_0"] for ours, theirs in pairs]
            share, speed = statistics.median(shares), statistics.median(theirs for _, theirs in pairs)
            spread = f"{share:.2f} ({min(shares):.2f}–{max(shares):.2f}){'' if share >= GOAL else ' ✗'}"
            print(f"| {name} | {bytes_read[name] / 1e6:.0f} | {speed:.0f} | {spread} |", flush=True)
        base.model.close()


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


def opened(path: Path, n_threads: int, registry: Registry) -> Sis:
    """A model whose weights are packed."""
    engine = Sis(str(path), n_threads, 2 * course.SPARE, registry)
    engine.begin(1, course.SPARE)
    for _ in range(course.WARM_PROMPTS):
        engine.rewind(0)
        engine.feed(16)
    return engine


def in_turn(base: Sis, other: Sis, n: int) -> list[tuple[float, float]]:
    """Tokens a second of both in ``n`` pairs of slices; who comes first changes with every pair."""
    pairs = []
    for i in range(n):
        turn = (base, other) if i % 2 == 0 else (other, base)
        speeds = {engine: slice_of(engine) for engine in turn}
        pairs.append((speeds[base], speeds[other]))
    return pairs


def slice_of(engine: Sis) -> float:
    """Tokens a second of a slice of decoding."""
    n, started = 0, course.clock()
    while (taken := course.clock() - started) < SLICE:
        if engine.cache.length(0) >= course.SPARE:
            engine.rewind(16)
        engine.token(1)
        n += 1
    return n / taken
