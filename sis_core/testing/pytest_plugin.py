"""Fixtures for the tests of plugins; pytest finds them wherever sis-core is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sis_core.registry import Registry


@pytest.fixture(scope="session")
def sis_registry() -> Registry:
    """Every installed plugin."""
    from sis_core.registry import Registry

    return Registry.load()


@pytest.fixture(scope="session")
def sis_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random LLaMA in F32, 256 values wide."""
    from sis_core.testing.models import write_model

    return write_model(tmp_path_factory.mktemp("sis") / "random.gguf")


@pytest.fixture(scope="session")
def sis_run() -> Callable[..., str]:
    """A function that runs the program as a user does: its arguments in, its output back; an error fails the test."""

    def run(*args: object) -> str:
        command = [sys.executable, "-m", "sis_core", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        shown = " ".join(["sis", *map(str, args)])
        assert done.returncode == 0, f"{shown} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    return run
