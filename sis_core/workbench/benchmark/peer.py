"""llama.cpp beside us: the same file, the same threads, in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sis_core.errors import BackendError
from sis_core.workbench.benchmark.cases import Case

TIMEOUT = 3600


class Peer(Protocol):
    """Another program that runs the same cases."""

    @property
    def name(self) -> str: ...

    def samples(self, case: Case, n: int) -> list[float] | None:
        """Tokens a second of ``n`` runs; None for a case that it cannot run. BackendError when it fails."""

    def close(self) -> None: ...


class PythonPeer:
    """llama-cpp-python, in a process of its own, so that its threads and ours never share one.

    Args:
        python: the interpreter that has it; this one by default.

    Raises:
        BackendError: the interpreter does not start or does not have the package.
    """

    def __init__(self, path: Path, n_threads: int, python: str | None = None) -> None:
        self._path, self._n_threads = path, n_threads
        where = "--vs-python" if python else "--vs llama.cpp"
        if python is None and importlib.util.find_spec("llama_cpp") is None:
            raise BackendError(
                "llama-cpp-python is not installed here",
                where=where,
                fix="`pip install llama-cpp-python`; or name an interpreter that has it (--vs-python), "
                "or a llama-bench program (--vs-binary)",
            )
        script = Path(__file__).with_name("peer_main.py")
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, str(script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        except OSError as error:
            raise BackendError(f"{python} cannot be started: {error}", where=where) from None
        try:
            self.name = f"llama-cpp-python {self._read()['version']}"
        except BackendError:
            self.close()
            raise

    def samples(self, case: Case, n: int) -> list[float] | None:
        request = {"path": str(self._path), "n_threads": self._n_threads, "kind": case.kind}
        request |= {"n": case.n, "batch": case.batch, "depth": case.depth}
        found = []
        for _ in range(n):
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            found.append(float(self._read()["sample"]))
        return found

    def _read(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            answer: dict[str, str] = json.loads(line)
        except ValueError:
            answer = {"error": f"it said {line[:80]!r}" if line else "it ended"}
        if "error" in answer:
            raise BackendError(f"llama-cpp-python: {answer['error']}", where="sis bench --vs")
        return answer

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class BinaryPeer:
    """llama-bench, with more of its own ``options``. It has no batches of several sequences: such cases stay empty."""

    def __init__(self, path: Path, n_threads: int, program: str, options: Sequence[str] = ()) -> None:
        self._path, self._n_threads, self._program, self._options = path, n_threads, program, options
        self.name = "llama-bench"
        if not os.access(program, os.X_OK):
            raise BackendError("is not a program", where=f"--vs-binary {program}", fix="give the path of llama-bench")

    def samples(self, case: Case, n: int) -> list[float] | None:
        if case.batch > 1:
            return None
        sizes = ("-p", str(case.n), "-n", "0") if case.kind == "pp" else ("-p", "0", "-n", str(case.n))
        command = [self._program, "-m", str(self._path), "-t", str(self._n_threads), "-ngl", "0", *sizes]
        command += ["-d", str(case.depth), "-r", str(n), "-o", "json", *self._options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
            rows = json.loads(done.stdout)
            return [float(value) for value in rows[0]["samples_ts"]]
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise BackendError(f"ended with code {error.returncode}: {last}", where=self._program) from None
        except (OSError, ValueError, LookupError, TypeError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"gave no figures: {error}", where=self._program) from None

    def close(self) -> None:
        pass
