"""What a process does beside running a model: signals, forks, limits. Each case in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import sis_core
from sis_core.errors import SamplerError, SisError
from sis_core.step import Best
from sis_core.texts.writer import check_finite

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has neither fork nor POSIX signals")
BACKENDS = ["numpy", *(["x86"] if importlib.util.find_spec("sis_x86") else [])]
OPEN = """
import os, signal, sys, threading, time
import sis_core
def opened():
    return sis_core.load({path!r}, backend={backend!r}, n_threads=2, n_ctx=64)
"""


def run(path: Path, backend: str, code: str) -> subprocess.CompletedProcess[str]:
    text = OPEN.format(path=str(path), backend=backend) + code
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_from_a_signal_handler(backend: str, random_model: Path) -> None:
    done = run(random_model, backend, """
model = opened()
signal.signal(signal.SIGALRM, lambda *_: model.close())
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.001)
try:
    while True:
        list(model.generate("he", max_tokens=8))
except sis_core.SisError as error:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(type(error).__name__)
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ClosedError\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_in_a_forked_child(backend: str, random_model: Path) -> None:
    done = run(random_model, backend, """
model = opened()
busy = threading.Thread(target=lambda: [list(model.generate("he", max_tokens=40)) for _ in range(20)])
busy.start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    model.close()
    os._exit(7)
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        print("child", os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.01)
else:
    os.kill(child, signal.SIGKILL)
    print("the child hangs")
busy.join()
model.close()
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "child 7\n"


def test_what_maps_ahead_ends_before_python() -> None:
    """After functions that are registered with atexit a daemon stands still: to wait for it then would be to hang."""
    code = """
import atexit, threading, weakref
import numpy as np
from sis_core.backends.native.ahead import Ahead
atexit.register(lambda: print("threads", threading.active_count()))
weakref.finalize._registered_with_atexit = False  # what is registered last comes first
class Library:
    def map_memory(self, *_): pass
kept, dropped = Ahead(Library()), Ahead(Library())
for ahead in (kept, dropped):
    ahead.memory(np.zeros(4096, np.uint8))
del ahead, dropped
print("threads", threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("threads 2\nthreads 1\n", "")


@pytest.mark.skipif("x86" not in BACKENDS, reason="sis-x86 is not installed")
def test_a_forked_child_can_open_what_others_were_opening(random_model: Path) -> None:
    """Another thread may hold the lock of guarded bytes at the moment of the fork."""
    done = run(random_model, "x86", """
import numpy as np
from sis_core.backends.native.library import address
from sis_x86.backend import X86Backend
library, data, busy = X86Backend().library(), np.zeros(1 << 16, np.uint8), True
def work():
    while busy:
        library.unguard(library.guard(address(data), data.size))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
hung = 0
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # which ends a child that hangs
        library.guard(address(data), data.size)
        os._exit(0)
    hung += os.waitpid(child, 0)[1] != 0
    if hung:
        break
busy = False
for thread in threads:
    thread.join()
print("hung", hung)
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hung 0\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_limit_of_address_space_is_an_error_or_read_in_place(backend: str, tmp_path: Path) -> None:
    weights = tiny_models.tensors()
    weights["token_embd.weight"] = np.zeros((500_000, 32), np.float32)  # 64 MB, and as much for the output
    weights["output.weight"] = np.ones((500_000, 32), np.float32)
    values = tiny_models.metadata(tokenizer__ggml__tokens=None, tokenizer__ggml__token_type=None)
    path = tiny_models.write_model(tmp_path / "large.gguf", values, weights)
    done = run(path, backend, """
import resource, psutil
import numpy, sis_core.texts.session, sis_core.backends.native
room = psutil.Process().memory_info().vms + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    with opened() as model, model.session() as session:
        print(session.feed([1, 2, 3]).shape)
except (sis_core.SisError, MemoryError) as error:
    print(type(error).__name__, error)
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(1, 500000)" in done.stdout or "MemoryLimitError" in done.stdout, done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_whose_numbers_are_not_finite_is_told_of(backend: str, tmp_path: Path) -> None:
    """In words, everywhere, and without numpy's warnings, which are errors here."""
    weights = tiny_models.tensors()
    weights["output_norm.weight"] = np.full(32, 3e38, np.float32)
    path = tiny_models.write_model(tmp_path / "huge.gguf", None, weights)
    with sis_core.load(path, backend=backend) as model:
        for ask in (model.logits, model.hidden, lambda ids: model.embed([ids]), lambda ids: list(model.generate(ids))):
            with pytest.raises(SisError, match=r"not finite|infinite|NaN|nan"):
                ask([1, 2, 3])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("value", "reason"), [(np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "NaN")])
def test_a_greedy_text_sees_every_logit(value: float, reason: str, backend: str, tmp_path: Path) -> None:
    """Also where native code tells it no more than which token is best."""
    weights = tiny_models.tensors()
    weights["output.weight"][250, 3] = value
    path = tiny_models.write_model(tmp_path / "one.gguf", None, weights)
    with sis_core.load(path, backend=backend) as model, pytest.raises(SisError, match=reason):
        list(model.generate([1, 2, 3], sampler="greedy"))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_logits_are_refused(value: float) -> None:
    logits = np.zeros(9, np.float32)
    check_finite(Best.of(logits))
    logits[4] = value
    with pytest.raises(SamplerError, match="a logit that is infinite"):
        check_finite(Best.of(logits))
