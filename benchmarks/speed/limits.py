"""What a machine could do at most: reading memory, multiplying in registers, and what a model asks of both."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sis_core.gguf_file import GGUFFile
from speed.plan import number

PEAKS = Path(__file__).parents[1] / "peaks"
UNITS = {  # by processor, slowest first
    "x86_64": ("avx2_int8", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"),
    "arm64": ("neon_dotprod", "neon_i8mm"),
}
UNITS_OF = {"avx2": ("avx2_int8",), "avx512_vnni": ("avx512_bf16", "avx512_vnni")}  # where SIS_ISA forbids more
KV_BYTES = 2  # of one value of the cache


def units() -> tuple[str, ...]:
    """The multiplying units that may exist here."""
    machine = {"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return UNITS.get(machine, ())


def compiler() -> list[str] | None:
    """A C compiler: the machine's own or ziglang's."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    found = subprocess.run([sys.executable, "-m", "ziglang", "version"], capture_output=True, check=False)
    return [sys.executable, "-m", "ziglang", "cc"] if found.returncode == 0 else None


def peak(unit: str, n_threads: int) -> float | str:
    """Multiply-adds a second of a unit, or one line why there is no figure."""
    command = compiler()
    if command is None:
        return "no C compiler (`pip install ziglang` brings one)"
    with tempfile.TemporaryDirectory() as scratch:
        program = str(Path(scratch) / unit)
        flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-pthread"]
        built = subprocess.run([*command, *flags, str(PEAKS / f"{unit}.c"), "-o", program], capture_output=True,
                               text=True, check=False)  # fmt: skip
        if built.returncode:
            return f"does not compile: {(built.stderr.strip().splitlines() or ['no message'])[-1]}"
        done = subprocess.run([program, str(n_threads)], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return done.stdout.strip()
    if done.returncode:
        return f"ended with code {done.returncode}"
    return float(done.stdout)


def bandwidth(n_threads: int, mib: int) -> float | str:
    """Bytes a second that threads read from a block of this size, or one line why there is no figure."""
    from sis_core.backends.native import NativeBackend, read_bandwidth
    from sis_core.errors import SisError
    from sis_core.registry import Registry

    why = "no backend with native code is installed"
    for backend in Registry.load().records("backends"):
        if not isinstance(backend, NativeBackend):
            continue
        if reason := backend.idle_reason():
            why = f"{backend.name}: {reason}"
            continue
        try:
            return read_bandwidth(backend.library(), n_threads, mib, repeats=9)
        except SisError as error:
            why = str(error)
    return why


@dataclass(frozen=True)
class Work:
    """What a model asks for.

    Attributes:
        layer_bytes, head_bytes: of the matrices; those of the layers are read once a step, the head's too where a row
            of the step has an output.
        layer_macs, head_macs: multiply-adds of one row.
        kv_bytes, kv_macs: more for each token of context that a row attends to.
        expert_bytes: of all experts, which are not among those of the layers; their multiply-adds are,
        expert_share: for the part of them that a row uses.
    """

    layer_bytes: int
    head_bytes: int
    layer_macs: int
    head_macs: int
    kv_bytes: int
    kv_macs: int
    expert_bytes: int = 0
    expert_share: float = 1.0

    @classmethod
    def of(cls, path: Path) -> Work:
        with GGUFFile.open(path) as file:
            meta: dict[str, Any] = dict(file.metadata)
            arch = meta["general.architecture"]
            n_layer, n_head = int(meta[f"{arch}.block_count"]), int(meta[f"{arch}.attention.head_count"])
            n_head_kv = int(meta.get(f"{arch}.attention.head_count_kv", n_head))
            head_dim = int(meta.get(f"{arch}.attention.key_length", int(meta[f"{arch}.embedding_length"]) // n_head))
            matrices = [t for name, t in file.tensors.items() if name.startswith("blk.") and name.endswith(".weight")]
            head = file.tensors.get("output.weight") or file.tensors["token_embd.weight"]
        values = 2 * n_layer * head_dim  # keys and values of one head in all layers
        layers, experts = ([t for t in matrices if len(t.shape) == n] for n in (2, 3))
        share = meta.get(f"{arch}.expert_used_count", 1) / (meta.get(f"{arch}.expert_count") or 1)
        return cls(
            sum(t.n_bytes for t in layers),
            head.n_bytes,
            sum(prod(t.shape) for t in layers) + round(share * sum(prod(t.shape) for t in experts)),
            head.shape[0] * head.shape[1],
            values * n_head_kv * KV_BYTES,
            values * n_head,
            sum(t.n_bytes for t in experts),
            share if experts else 1.0,
        )

    @property
    def n_bytes(self) -> int:
        return self.step_bytes(1) + self.head_bytes

    def step_bytes(self, n_rows: int) -> int:
        """What the layers of a step of ``n_rows`` rows read, where rows choose their experts at random."""
        return self.layer_bytes + round(self.expert_bytes * (1 - (1 - self.expert_share) ** n_rows))

    def limit(self, row: str, read: float | None, macs: float | None) -> float | None:
        """Tokens a second of a row at ``read`` bytes and ``macs`` multiply-adds a second: the tighter of the two.

        Of a prompt, each token attends to those before it, and only the last goes through the head. The weights of a
        prompt are read once for every 512 tokens.
        """
        n = 1
        if row.startswith("prompt"):
            n = number(row)
            steps = -(-n // 512)
            n_bytes = steps * self.step_bytes(min(n, 512)) + self.head_bytes + n * self.kv_bytes
            n_macs = n * self.layer_macs + self.head_macs + n * (n + 1) // 2 * self.kv_macs
        elif row.startswith("decode"):
            n_bytes = self.n_bytes + number(row) * self.kv_bytes
            n_macs = self.layer_macs + self.head_macs + number(row) * self.kv_macs
        elif row.startswith("batch"):
            n = number(row)
            n_bytes, n_macs = self.step_bytes(n) + self.head_bytes, n * (self.layer_macs + self.head_macs)
        else:
            return None
        seconds = [amount / rate for amount, rate in ((n_bytes, read), (n_macs, macs)) if rate]
        return n / max(seconds) if len(seconds) == 2 else None
