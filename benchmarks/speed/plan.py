"""What is measured: files, rows, and the ratios that are wanted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from random_model import write_model
from shapes import MEASURED, SHAPES, Shape

from speed.course import SPARE

SHAPE_OF = {
    "tinyllama": SHAPES["tinyllama-1.1b"],
    "gpt2": SHAPES["gpt2"],
    "qwen3moe": MEASURED["qwen3-30b-a3b"].cut(4),
    "gptoss": MEASURED["gpt-oss-20b"].cut(4),
}
KINDS = {  # name: (type, pure)
    "q4_0": ("Q4_0", True),
    "q4_0-q6_k": ("Q4_0", False),  # what people have: the head in Q6_K
    "q8_0": ("Q8_0", True),
    "q4_k_m": ("Q4_K_M", False),
    "mxfp4": ("MXFP4", False),
}
LABELS = {
    "prompt512": "prompt of 512",
    "prompt2048": "prompt of 2,048",
    "decode0": "decode at depth 0",
    "decode1024": "decode at depth 1,024",
    "decode4096": "decode at depth 4,096",
    "batch8": "8 sequences at once",
    "batch32": "32 sequences at once",
    "load": "load to first token (s)",
    "step": "Python's share of a step (%)",
    "token": "Python's share of a token (%)",
}
SPEEDS = tuple(row for row in LABELS if row.startswith(("prompt", "decode", "batch")))
SHARES = ("step", "token")  # sis alone has these

TABLE = {  # the rows that have a goal
    "tinyllama-q4_0": (*SPEEDS, "load"),
    "tinyllama-q4_0-q6_k": ("prompt512", "decode0", "decode1024", "batch8", "batch32", "load"),
    "tinyllama-q8_0": ("prompt512", "decode0", "load"),
    "tinyllama-q4_k_m": ("prompt512", "decode0", "load"),
    "gpt2-q4_0": ("prompt512", "decode0", "load", *SHARES),
    "gpt2-q4_0-q6_k": ("prompt512", "decode0", "load", *SHARES),
}
_EXPERT_ROWS = ("prompt512", "decode0", "batch8")
EXPERTS = {
    "qwen3moe-q4_0-q6_k": _EXPERT_ROWS,
    "qwen3moe-q4_k_m": _EXPERT_ROWS,
    "gptoss-mxfp4": _EXPERT_ROWS,
    "gptoss-q4_0-q6_k": _EXPERT_ROWS,
}
RUNG_TABLE = {"tinyllama-q4_0": ("prompt512", "decode0"), "gpt2-q4_0": ("prompt512", "decode0")}
QUICK = {"tinyllama-q4_0": ("prompt512", "decode0", "load"), "gpt2-q4_0": ("prompt512", "decode0", "load", "step")}

_Q4_0 = {
    "prompt512": 6.0, "prompt2048": 7.0, "decode0": 1.12, "decode1024": 1.6, "decode4096": 2.5,
    "batch8": 2.0, "batch32": 3.0, "load": 1.0,
}  # fmt: skip
_GPT2 = {"prompt512": 5.5, "decode0": 1.5, "load": 1.0, **dict.fromkeys(SHARES, 3.0)}
_OTHER = {"prompt512": 5.0, "decode0": 1.1, "load": 1.0}
_EXPERTS = {"prompt512": 3.0, "decode0": 1.1, "batch8": 1.5}
GOALS: dict[str, dict[str, float]] = {  # ratio to the peer; of Python's shares, the most that they may be
    "tinyllama-q4_0": _Q4_0,
    "tinyllama-q4_0-q6_k": _Q4_0,
    "tinyllama-q8_0": _OTHER,
    "tinyllama-q4_k_m": _OTHER,
    "gpt2-q4_0": _GPT2,
    "gpt2-q4_0-q6_k": _GPT2,
    "qwen3moe-q4_0-q6_k": _EXPERTS,
    "qwen3moe-q4_k_m": {**_EXPERTS, "prompt512": 1.5},
    "gptoss-mxfp4": {**_EXPERTS, "prompt512": 1.5},
    "gptoss-q4_0-q6_k": _EXPERTS,
}
RUNG_GOALS = {"avx2": {"prompt512": 1.3, "decode0": 1.0}, "avx512_vnni": {"prompt512": 2.0, "decode0": 3.0}}


@dataclass(frozen=True)
class File:
    """A file of random weights: a shape and how it is quantised."""

    name: str

    @property
    def shape(self) -> Shape:
        return SHAPE_OF[self.name.partition("-")[0]]

    @property
    def n_ctx(self) -> int:
        """Tokens that the model can hold: learnt positions end, rotations do not."""
        return self.shape.n_ctx if self.shape.rope_theta is None else 1 << 20

    def write(self, folder: Path) -> Path:
        """The file in ``folder``, made there unless an earlier run left it."""
        path = folder / f"{self.name}.gguf"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            file_type, pure = KINDS[self.name.partition("-")[2]]
            write_model(self.shape, part, file_type=file_type, pure=pure)
            os.replace(part, path)
        return path


FILES = {name: File(name) for name in (f"{shape}-{kind}" for shape in SHAPE_OF for kind in KINDS)}


@dataclass(frozen=True)
class Contest:
    """Rows of one file, on the best instruction set or on a lower one against a peer that has no better."""

    file: File
    rows: tuple[str, ...]
    isa: str | None = None

    @property
    def name(self) -> str:
        return f"{self.file.name} ({self.isa})" if self.isa else self.file.name

    def goal(self, row: str) -> float | None:
        goals = RUNG_GOALS.get(self.isa, {}) if self.isa else GOALS.get(self.file.name, {})
        return goals.get(row)


def number(row: str) -> int:
    """The number that ends a row's name: tokens, depth or sequences."""
    return int(row.lstrip("abcdefghijklmnopqrstuvwxyz"))


def tokens_needed(row: str) -> int:
    """Tokens that one sequence holds at the end of a row, at most."""
    return SPARE + (number(row) if row.startswith(("first", "prompt", "decode")) else 0)


def contests(
    files: list[str], rows: list[str], full: bool, rungs: list[str], *, experts: bool = False
) -> list[Contest]:
    """What the options ask for. Rows that a file's context has no room for are left out."""
    table = EXPERTS if experts else TABLE if full else QUICK
    wanted = files or list(table)
    found = []
    for name in wanted:
        chosen = rows or table.get(name) or EXPERTS.get(name) or QUICK["tinyllama-q4_0"]
        found.append(Contest(FILES[name], _possible(FILES[name], chosen)))
    for isa in rungs:
        for name in RUNG_TABLE:
            if name in wanted:
                chosen = [row for row in rows if row not in SHARES] or RUNG_TABLE[name]
                found.append(Contest(FILES[name], _possible(FILES[name], chosen), isa))
    return [contest for contest in found if contest.rows]


def _possible(file: File, rows: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(row for row in LABELS if row in rows and (row not in SPEEDS or tokens_needed(row) <= file.n_ctx))
