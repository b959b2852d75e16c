"""The servers that are compared, as processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

START = 120.0  # seconds


@dataclass(frozen=True)
class Server:
    """A program that answers at ``/health`` when it is ready, and at ``/v1/completions``."""

    name: str
    command: Sequence[str]  # with {port}

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Its address while it runs; SystemExit, which names its log, when it does not come up."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [part.replace("{port}", str(port)) for part in self.command]
        with tempfile.NamedTemporaryFile(prefix="serve-", suffix=".log", delete=False) as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + START
            while not _healthy(address):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"{self.name} did not start: {' '.join(command)}; see {log.name}")
                time.sleep(0.2)
            yield address
            Path(log.name).unlink()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def sis(model: Path, *, n_threads: int, n_ctx: int, cache: int) -> Server:
    """Ours."""
    command = [sys.executable, "-m", "sis_core", "serve", "-m", str(model), "--port", "{port}", "--queue", "1000"]
    command += ["--threads", str(n_threads), "--ctx", str(n_ctx), "--cache", str(cache)]
    return Server("sis", command)


def llama_server(program: Path, model: Path, *, n_threads: int, n_ctx: int, cache: int, n_slots: int) -> Server:
    """llama.cpp's, with one cache for all slots, as it is by default where it chooses the slots itself."""
    command = [str(program), "-m", str(model), "--port", "{port}", "-t", str(n_threads), "-tb", str(n_threads)]
    command += ["-np", str(n_slots), "--kv-unified", "-c", str(max(cache, n_ctx))]
    return Server(f"llama-server, {n_slots} slots", command)
