"""A cluster of three nodes on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

WAY = Path(__file__).with_name("three_nodes.py")
SECONDS = 240


class Nodes:
    """The head is node 0: whoever joins from this machine joins there, and it is never killed."""

    seconds = SECONDS

    def __init__(self) -> None:
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex(),
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120",
            "RAY_worker_register_timeout_seconds": "240", "RAY_memory_monitor_refresh_ms": "0",
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(WAY)], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.address = self._read()

    def kill(self, number: int) -> None:
        self._ask(f"kill {number}")

    def add(self) -> None:
        self._ask("add")

    def close(self) -> None:
        try:
            self._process.communicate(timeout=60)  # it ends with its standard input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The program, with the cluster's token."""
        command = [sys.executable, "-m", "sis_core", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: object) -> str:
        """The program to its end; what it wrote to standard output."""
        process = self.start(*arguments)
        found, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        return found

    def _ask(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        while line and not (line == "done" or line.startswith("127.0.0.1:")):  # Ray says something too
            line = self._process.stdout.readline().strip()
        assert line, self._process.communicate()[1]
        return line


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: `uv run --group ray pytest -m full plugins/ray`")
    found = Nodes()
    yield found
    found.close()
