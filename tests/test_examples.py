"""The examples as a stranger uses them: installed into a folder of their own, outside the workspace."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = {"quant_plugin", "sampler_plugin", "backend_plugin", "chat_format", "tokenizer_plugin", "nf4", "codebook4",
            "hqq", "ternary", "mxfp6", "two_of_four", "awq", "c_decoder", "fused_kernel"}  # fmt: skip


FORMATS = ("nf4/sis_nf4.py", "codebook4/sis_codebook4.py", "hqq/sis_hqq.py", "ternary/sis_ternary.py",
           "mxfp6/sis_mxfp6.py", "two_of_four/sis_two_of_four.py", "awq/sis_awq.py", "c_decoder/sis_pot4/__init__.py",
           "c_decoder/pot4.c")  # fmt: skip


@pytest.mark.parametrize("path", FORMATS)
def test_a_format_is_forty_lines(path: str) -> None:
    """What the README says: at most, with docstrings and comments, without empty lines."""
    lines = (ROOT / "examples" / path).read_text("utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


def test_nf4_is_twenty_lines_of_code() -> None:
    """As the tutorial says: without the docstrings and the empty lines."""
    source = ast.parse((ROOT / "examples" / "nf4" / "sis_nf4.py").read_text("utf-8"))
    for node in ast.walk(source):
        if isinstance(node, ast.Module | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    assert sum(bool(line) for line in ast.unparse(source).split("\n")) <= 20


def test_the_header_that_an_example_copied_is_ours() -> None:
    ours = ROOT / "sis_core" / "include" / "sis" / "abi.h"
    assert (ROOT / "examples" / "fused_kernel" / "csrc" / "sis" / "abi.h").read_bytes() == ours.read_bytes()


def installer() -> list[str]:
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pytest.skip("neither uv nor pip is here to install the example with")


# In the full run: formats in Python, as nf4 is, and what its kit's tests try without installing it.
FORMATS = ("awq", "codebook4", "hqq", "ternary", "mxfp6", "two_of_four")
ALIKE = (*FORMATS, "backend_plugin", "chat_format", "tokenizer_plugin")
RUN = [pytest.param(name, marks=pytest.mark.full) if name in ALIKE else name for name in sorted(EXAMPLES)]


@pytest.mark.parametrize("name", RUN)
def test_an_example_installs_and_passes_its_own_test(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(ROOT / "examples" / name, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "dist"))
    target = tmp_path / "site"
    built = subprocess.run(
        [*installer(), "--no-deps", "--target", str(target), str(copy)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert built.returncode == 0, built.stderr
    env = {**os.environ, "PYTHONPATH": str(target)}
    listed = subprocess.run(
        [sys.executable, "-m", "sis_core", "plugins", "--json"],
        capture_output=True,
        text=True,
        env=env,
        check=True,
        cwd=tmp_path,
    )
    packages = {row["package"]: row for row in map(json.loads, listed.stdout.splitlines())}
    dist = next(target.glob("*.dist-info")).name.partition("-")[0].replace("_", "-")
    row = packages.get(dist) or packages[dist.replace("-", "_")]
    assert row["problem"] is None
    assert row["offers"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(copy / "tests")],
        capture_output=True, text=True, env=env, check=False, cwd=copy,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
