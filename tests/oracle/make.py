"""Make the tiny model of a family, and what transformers and llama.cpp compute with it.

    python tests/oracle/make.py --llama-cpp llama_cpp_python-0.3.36/vendor/llama.cpp --out oracle qwen3moe gpt-oss
    python tests/oracle/make.py --llama-cpp … --out oracle                       # every family
    python tests/oracle/make.py --llama-cpp … --out oracle --golden tests/goldens/families qwen3moe

A tiny random transformers model → llama.cpp's `convert_hf_to_gguf.py` in F32 → `OUT/<family>/model.gguf`, and beside it
`logits.npz` (see tests/goldens/families/README.md) and the checkpoint. Runs in the oracles' environment
(`benchmarks/oracle_requirements.txt`).
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peer
import torch
from doubled import Doubled
from families import FAMILIES, Family
from tiny import build, write_checkpoint

N_PROMPT = 24
N_GREEDY = 64
AGREES = 1e-5
AGREES_GELU = 1e-3
LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]

Logits = npt.NDArray[np.float64]


def prompt() -> list[int]:
    """First and last byte, a repeated one, and a walk over the rest."""
    return [0, 255, 7, 7, *((37 * i * i + 11) % 256 for i in range(N_PROMPT - 4))]


def difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """max|a − b| / max|b|."""
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


def whole_pass(model: Any, tokens: list[int]) -> Logits:
    with torch.no_grad():
        found: Logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    return found


def token_by_token(model: Any, tokens: list[int]) -> Logits:
    past, rows = None, []
    with torch.no_grad():
        for token in tokens:
            output = model(input_ids=torch.tensor([[token]]), past_key_values=past, use_cache=True)
            past = output.past_key_values
            rows.append(output.logits[0, -1].numpy())
    return np.stack(rows)


def greedy(model: Any, tokens: list[int]) -> list[int]:
    """The tokens and ``N_GREEDY`` more, each the best of a whole pass."""
    found = list(tokens)
    for _ in range(N_GREEDY):
        found.append(int(whole_pass(model, found)[-1].argmax()))
    return found


def convert(family: Family, checkpoint: Path, out: Path, llama_cpp: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("convert.py")), "--llama-cpp", str(llama_cpp)]
    command += ["--pre", family.pre, "--", str(checkpoint), "--outtype", "f32", "--outfile", str(out)]
    command += ["--model-name", f"tiny {family.name}", *family.converter_options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the converter failed:\n{done.stderr[-3000:]}")


def double_model(family: Family) -> Any:
    with Doubled():
        return build(family).double()


def compared(family: Family, folder: Path, llama_cpp: Path) -> tuple[dict[str, Any], str]:
    """Write a family's checkpoint and GGUF file into a new folder; what was computed, and how well it agrees."""
    shutil.rmtree(folder, ignore_errors=True)
    single = write_checkpoint(family, folder / "checkpoint")
    file = folder / "model.gguf"
    convert(family, folder / "checkpoint", file, llama_cpp)
    with Doubled():
        model = build(family).double()
        ids = greedy(model, prompt())[:-1]
        logits = whole_pass(model, ids)
        stepwise = difference(token_by_token(model, ids), logits)
    best = np.sort(logits, axis=1)[N_PROMPT - 1 :]
    found = {
        "ids": np.array(ids, np.int32),
        "n_prompt": N_PROMPT,
        "logits": logits.astype(np.float32),
        "gaps": (best[:, -1] - best[:, -2]).astype(np.float32),
    }
    rounding = difference(whole_pass(single, ids), logits)
    line = f"transformers in float32 {rounding:.1e}, one by one {stepwise:.1e}; "
    line += f"spread {logits.std():.2f}, {len(set(ids))} different ids; "
    line += f"{sum(parameter.numel() for parameter in model.parameters()) / 1000:.0f} k parameters"
    try:
        found["llama_cpp"] = peer.logits(file, ids)
        one_by_one = peer.logits(file, ids, step=1)
    except RuntimeError as error:
        return found, f"DISAGREE {error}; {line}"
    differences = difference(found["llama_cpp"], logits), difference(one_by_one, logits)
    verdict = "agree   " if max(differences) < max(2 * rounding, AGREES_GELU if family.gelu else AGREES) else "DISAGREE"
    return found, f"{verdict} llama.cpp {differences[0]:.1e}, one by one {differences[1]:.1e}; {line}"


def make(family: Family, folder: Path, llama_cpp: Path) -> str:
    """Write everything about a family; returns what to print."""
    found, line = compared(family, folder, llama_cpp)
    np.savez_compressed(folder / "logits.npz", **found)
    if family.settled_with:
        settled = replace(family, config=dict(family.config) | dict(family.settled_with))
        line += f"\n{'':18} settled with other numbers: {compared(settled, folder / 'settled', llama_cpp)[1]}"
    return f"{family.name:18} {line}"


def write_golden(name: str, folder: Path, goldens: Path) -> None:
    """Pack what `make` wrote for the tests: the file, and the logits at some positions."""
    goldens.mkdir(parents=True, exist_ok=True)
    packed = lzma.compress((folder / "model.gguf").read_bytes(), lzma.FORMAT_XZ, filters=LZMA_FILTERS)
    (goldens / f"{name}.gguf.xz").write_bytes(packed)
    with np.load(folder / "logits.npz") as made:
        rows = np.array([*range(int(made["n_prompt"])), *range(int(made["n_prompt"]) + 15, len(made["ids"]), 16)])
        np.savez_compressed(
            goldens / f"{name}.npz",
            ids=made["ids"],
            n_prompt=made["n_prompt"],
            rows=rows.astype(np.int32),
            logits=made["logits"][rows],
            gaps=made["gaps"],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--llama-cpp", type=Path, required=True, help="the sources of llama.cpp, for its converter")
    parser.add_argument("--out", type=Path, required=True, help="a folder; each family gets one of its own in it")
    parser.add_argument("--golden", type=Path, help="write the tests' golden of each family into this folder too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in options.families or FAMILIES:
        if name not in FAMILIES:
            parser.error(f"no family {name!r}; known are {', '.join(FAMILIES)}")
        try:
            print(make(FAMILIES[name], options.out / name, options.llama_cpp), flush=True)
        except Exception as error:  # the other families can still be made
            print(f"{name:18} FAILED   {error}", flush=True)
            continue
        if options.golden:
            write_golden(name, options.out / name, options.golden)


if __name__ == "__main__":
    main()
