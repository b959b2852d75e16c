"""What the tests of quantize, eval, bench and profile share: the program, and formats in single files."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from click.testing import CliRunner

from sis_core.cli.main import main
from sis_core.gguf_file import GGUFFile
from sis_core.registry import Registry
from sis_core.workbench.quantizer import make_plan, quantize_file

SIS = [sys.executable, "-m", "sis_core"]

FORMAT = '''
import time
import numpy as np
from sis_core import hookimpl
from sis_core.quant import BlockFormat

class Mine(BlockFormat):
    """A byte a value between -{limit} and {limit}."""
    name, type_id, block_size, type_size = "{name}", {type_id}, {block_size}, {block_size}
    def quantize_blocks(self, values):
        time.sleep({delay})
        return np.clip(np.rint(values * (127 / {limit})), -127, 127).astype(np.int8).view(np.uint8)
    def dequantize_blocks(self, blocks):
        return blocks.view(np.int8).astype(np.float32) * np.float32({limit} / 127)

@hookimpl
def sis_register_quant_formats():
    return [Mine()]
'''


def sis(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return subprocess.run([*SIS, *map(str, args)], capture_output=True, text=True, check=False, timeout=180, **options)


def inside(*args: object) -> subprocess.CompletedProcess[str]:
    """All of the program but its start, in this process, for what needs no signal, pipe or environment of its own.

    Warnings go to pytest, not to stderr.
    """
    command = [*map(str, args)]
    done = CliRunner().invoke(cast(Any, SimpleNamespace(main=main)), command, prog_name="sis")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)


def format_file(
    folder: Path,
    stem: str,
    *,
    name: str,
    type_id: int | None = None,
    block_size: int = 16,
    limit: float = 2.0,
    delay: float = 0,
) -> Path:
    """A plugin in one file with a format of its own."""
    path = folder / f"{stem}.py"
    path.write_text(FORMAT.format(name=name, type_id=type_id, block_size=block_size, limit=limit, delay=delay))
    return path


def refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 1) -> None:
    """Check that the program said what is wrong, plainly."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def interrupted(*args: object, after: float = 3.0) -> None:
    """Run the program, press Ctrl-C, and check that it ends as it should."""
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    running = subprocess.Popen([*SIS, *map(str, args)], **options)
    try:
        time.sleep(after)
        assert running.poll() is None, running.communicate()
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130, (output, errors)
    assert "Traceback" not in errors


def quantise(source: Path, target: Path, name: str, registry: Registry, **options: Any) -> Path:
    """Quantise in this process."""
    with GGUFFile.open(source) as file:
        quantize_file(file, target, make_plan(file, registry, name, **options), n_threads=2)
    return target


def types(path: Path) -> dict[str, str]:
    """The type of each tensor of a file."""
    with GGUFFile.open(path) as file:
        return {info.name: info.type_name for info in file.tensors.values()}
