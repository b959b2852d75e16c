"""A file that is cut or rewritten while a model reads it is an error, and never the end of the process.

What would kill Python runs in a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_model

from sis_core.testing.kernels import kind_of_this_machine

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a mapped file cannot be cut on Windows")
NATIVE = kind_of_this_machine()
needs_native = pytest.mark.skipif(NATIVE is None, reason="no native backend for this machine")

BEGIN = """
import faulthandler, mmap, os, signal, sys
from sis_core import SisError, load
from sis_core.backends.native.guard import InPlace
from sis_core.gguf_file import reader

path, backend, folder = sys.argv[1:]
whole = open(path, "rb").read()

def refused(work, *words):
    try:
        found = work()
    except SisError as error:
        assert any(word in str(error) for word in words), error
        print("refused")
    else:
        raise SystemExit(f"nobody noticed: {found!r}")

def restore():
    os.truncate(path, 0)  # the same inode
    with open(path, "r+b") as file:
        file.write(whole)

def text(model, n=3):
    return "".join(model.generate("ab", max_tokens=n, seed=0))

def opened(**options):
    restore()
    return load(path, backend=backend, n_threads=2, **options)
"""

CHANGED_BETWEEN = """
for options in ({}, {"pack": False}, {"gradual": True}):
    for change in ("cut", "rewritten"):
        with opened(**options) as model:
            if change == "cut":
                os.truncate(path, 100)
            else:
                with open(path, "r+b") as file:
                    file.write(whole[::-1])
            refused(lambda: text(model), "shrank" if change == "cut" else "was rewritten")
            restore()
    with opened(**options | {"pack": False}) as model:
        pieces = model.generate("ab", max_tokens=50, seed=0)
        for _ in range(3):
            next(pieces)
        os.truncate(path, 100)
        refused(lambda: list(pieces), "shrank")
"""

CHANGED_WITHIN = """
def cut_after(owner, name):
    # Cut the file between the look at it and the reading: no look can be late enough.
    look = getattr(owner, name)
    def looked(*given):
        found = look(*given)
        if cutting:
            os.truncate(path, 5000)
        return found
    setattr(owner, name, looked)

cutting = False
cut_after(InPlace, "before_step")
cut_after(reader._Part, "check_unchanged")
for options in ({}, {"pack": False}, {"gradual": False}):
    with opened(**options) as model:
        before = text(model) if "gradual" in options else text(model, 1)
        if options.get("gradual") is False and backend != "numpy":
            cutting = True
            print(text(model) == before)  # packed: it needs no file
            cutting = False
            continue
        cutting = True
        refused(lambda: text(model), "shrank", "ends before")
        cutting = False
        refused(lambda: text(model), "shrank", "could not be read")

class Cut(Exception): ...
def cut_while_packing():
    global cutting
    restore()
    cutting = True
    try:
        text(load(path, backend=backend, gradual=False))
    finally:
        cutting = False
refused(cut_while_packing, "shrank", "ends before", "cannot be mapped")
"""

CUT_AHEAD = """
from sis_core.backends.native.ahead import Ahead
with opened(gradual=True) as model:
    store = model.forward._store
    store.ahead.stop()
    rows, guards = list(store.waiting.rows_in_files()), [bound.guard for bound in store.in_place._weights]
    written = os.stat(path).st_mtime_ns
    os.truncate(path, 5000)
    ahead = Ahead(store.library)
    ahead.file(rows)
    ahead._jobs.put(None)
    ahead._thread.join()
    ahead.stop()
    print(sum(guard.hit for guard in guards) > 1)
    refused(lambda: text(model), "shrank")
    restore()
    os.utime(path, ns=(0, written))  # as if a disk had failed once
    refused(lambda: text(model), "could not be read")
    (packing,) = [one for one in store.waiting._packings if one.bound.guard.hit][:1]
    refused(packing.advance, "could not be read")
"""

OTHERS = """
seen = []
how = os.path.basename(folder)
if how == "faulthandler before":
    faulthandler.enable()
if how == "python's":
    signal.signal(signal.SIGBUS, lambda number, frame: seen.append(number))
with opened(pack=False) as model:
    if how == "faulthandler after":
        faulthandler.enable()
    print(len(text(model)) > 0, flush=True)
    if how == "faulthandler between":  # the guards of the second model find somebody else's handler
        faulthandler.enable()
        second = load(path, backend=backend, pack=False)
    if how in ("python's", "sent"):
        os.kill(os.getpid(), signal.SIGBUS)
        assert seen == [signal.SIGBUS]
        print("seen", flush=True)
        raise SystemExit
    other = os.path.join(folder, "other")
    open(other, "wb").write(bytes(100_000))
    with open(other, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        os.truncate(other, 0)
        mapped[50_000]
"""


def run(script: str, folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    path = write_model(folder / "m.gguf")
    command = [sys.executable, "-c", BEGIN + script, str(path), backend, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def backends() -> list[str]:
    return ["numpy", *([NATIVE.name] if NATIVE else [])]


@pytest.mark.parametrize("backend", backends())
def test_changed_between_steps(backend: str, tmp_path: Path) -> None:
    done = run(CHANGED_BETWEEN, tmp_path, backend)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 9), done.stderr


@pytest.mark.parametrize("backend", backends())
def test_cut_within_a_step(backend: str, tmp_path: Path) -> None:
    done = run(CHANGED_WITHIN, tmp_path, backend)
    counted = 7 if backend == "numpy" else 5
    assert (done.returncode, done.stdout.split().count("refused")) == (0, counted), done.stderr


@needs_native
def test_cut_while_it_is_mapped_ahead(tmp_path: Path) -> None:
    """What guards the same bytes is told: they are zeros from now on."""
    assert NATIVE is not None
    done = run(CUT_AHEAD, tmp_path, NATIVE.name)
    assert (done.returncode, done.stdout.split()) == (0, ["True", *["refused"] * 3]), done.stderr


@needs_native
@pytest.mark.parametrize("how", ["nobody", "faulthandler before", "faulthandler after", "faulthandler between"])
def test_other_memory_is_no_business_of_ours(how: str, tmp_path: Path) -> None:
    assert NATIVE is not None
    done = run(OTHERS, tmp_path / how, NATIVE.name)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "True\n"), done.stderr
    assert done.stderr.count("Fatal Python error: Bus error") == (how != "nobody"), done.stderr


@needs_native
@pytest.mark.parametrize(("how", "code"), [("sent", -signal.SIGBUS if os.name == "posix" else 0), ("python's", 0)])
def test_a_signal_that_was_sent_goes_to_the_handler_before(how: str, code: int, tmp_path: Path) -> None:
    assert NATIVE is not None
    done = run(OTHERS, tmp_path / how, NATIVE.name)
    assert (done.returncode, done.stdout) == (code, "True\n" + "seen\n" * (code == 0)), done.stderr
