"""Memory that a model takes: peak resident set, less that of the same process after imports and tokenizer.

    python benchmarks/memory.py MODEL.gguf … [--backend numpy] [--no-pack] [--prompt 512] [--prompts 3] [--tokens 32]

The peaks of anonymous and file-backed pages are sampled every few milliseconds (Linux only); the file's pages count as
they are touched. Prints one JSON object for each model, sizes in MiB and as a ratio to the file's size; `loaded` is
what is resident when the model has been loaded and no step has run, `steady` what is in the end. The ratio, without the
cache, should be at most 1.15 with packed weights and 1.05 with weights read in place; what a step works in is part of
it, and the same for any number of layers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.texts.language_model import load

MIB = 1 << 20
FIELDS = ("VmRSS", "RssAnon", "RssFile")


def resident() -> dict[str, int]:
    """Bytes resident now: in all, anonymous, and backed by files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in FIELDS}


class Peak:
    """Samples `resident` in a thread and keeps the largest of each."""

    def __init__(self) -> None:
        self.values = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.003):
            self.values = {name: max(size, self.values[name]) for name, size in resident().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="each is measured in a process of its own")
    parser.add_argument("--backend")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prompt")
    parser.add_argument("--prompts", type=int, default=1, help="how often it is read; weights are packed meanwhile")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to decode")
    parser.add_argument("--pack", action=argparse.BooleanOptionalAction, help="as `sis generate` has it")
    arguments = parser.parse_args()
    if len(arguments.model) > 1:
        rest = [text for text in sys.argv[1:] if text not in arguments.model]
        for model in arguments.model:
            subprocess.run([sys.executable, __file__, model, *rest], check=True)
        return
    measure(arguments.model[0], arguments)


def measure(path: str, arguments: argparse.Namespace) -> None:
    """Print what one model takes."""
    registry = Registry.load()
    registry.load_all()
    with GGUFFile.open(path) as file:
        n_vocab = build_tokenizer(file, registry).n_vocab
    prompt = np.random.default_rng(0).integers(0, n_vocab, arguments.prompt).tolist()  # no model imports numpy.random
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)  # BLAS takes its own buffers now, not later
    before = resident()
    n_ctx = arguments.prompt + arguments.tokens
    options = {"backend": arguments.backend, "pack": arguments.pack, "n_ctx": n_ctx}
    with Peak() as peak, load(path, registry=registry, **options) as model:
        loaded = resident()
        with model.session(n_ctx=n_ctx) as session:
            for i in range(arguments.prompts):
                if i:
                    session.truncate(0, 0)
                session.feed(prompt)
            for token in prompt[: arguments.tokens]:
                session.feed([token])
            cache = session.nbytes
            steady = resident()
            backend, packed = model.backend, model.fit.plan.packed > 0
    size = os.stat(path).st_size
    taken = {name: peak.values[name] - before[name] for name in FIELDS}
    report = {
        "model": Path(path).name,
        "backend": backend,
        "packed": packed,
        "file_mib": round(size / MIB, 1),
        "before_mib": round(before["VmRSS"] / MIB, 1),
        "cache_mib": round(cache / MIB, 1),
        **{f"loaded_{name}_mib": round((loaded[name] - before[name]) / MIB, 1) for name in FIELDS},
        **{f"steady_{name}_mib": round((steady[name] - before[name]) / MIB, 1) for name in FIELDS},
        **{f"peak_{name}_mib": round(value / MIB, 1) for name, value in taken.items()},
        "ratio": round((taken["VmRSS"] - cache) / size, 3),
        "steady_ratio": round((steady["VmRSS"] - before["VmRSS"] - cache) / size, 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
