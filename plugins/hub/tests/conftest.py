"""A fake hub for every test, and proof that nothing leaves loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sis_tiny
from sis_hub.fake_hub import FakeHub, FakeRepo, serving
from sis_hub.hub import HubSource
from sis_hub.hub_cache import HubCache
from sis_hub.remote import Patience
from sis_hub.repository import Hub

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import CHECKPOINTS

MODEL = (Path(sis_tiny.__file__).parent / "tiny.gguf").read_bytes()

# What a program may reach. Names are looked up before anything is sent, so that is where it stops.
GUARD = """
import sys

def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in ("127.0.0.1", "::1", "localhost", None, ""):
        raise RuntimeError(f"{event} leaves loopback: {host}")

sys.addaudithook(guard)
"""
_watching: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _watching:
        namespace["guard"](event, arguments)


namespace: dict[str, Callable[[str, tuple[object, ...]], None]] = {}
exec(GUARD.replace("sys.addaudithook(guard)", ""), namespace)
sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing from this machine, and nothing beyond loopback."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("HF_", "HUGGINGFACE", "OLLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("SIS_CACHE", str(tmp_path / "sis"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _watching.append(True)
    yield
    _watching.pop()
    if "huggingface_hub" in sys.modules:
        sys.modules["huggingface_hub"].close_session()  # no connection is left to the hub that goes with the test


@pytest.fixture
def model() -> bytes:
    """A real, small GGUF file."""
    return MODEL


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one repository, ``me/tiny``."""
    files = {"README.md": b"---\nlicense: mit\n---\n# Tiny\n", "tiny-Q8_0.gguf": MODEL}
    with serving(FakeHub({"me/tiny": FakeRepo(files)})) as served:
        yield served


@pytest.fixture
def patience() -> Patience:
    """Tries as often as for users, but waits for nothing."""
    return Patience(sleep=lambda seconds: None, timeout=2)


@pytest.fixture
def source(hub: FakeHub, patience: Patience, tmp_path: Path) -> HubSource:
    """The source ``hf`` at the fake hub, with a cache of its own."""
    return HubSource(Hub(hub.url, patience), HubCache(tmp_path / "hf"), memory=1 << 34)


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Iterator[Run]:
    """Starts the program in a process of its own, with the fake hub as its hub and nothing beyond loopback."""
    started: list[subprocess.Popen[str]] = []
    code = GUARD + "from sis_core.cli import main\nmain()"

    def run(*arguments: str, prefix: str = "", **environment: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf-home"), **environment}
        process = subprocess.Popen(
            [sys.executable, "-c", prefix + code, *arguments], env=variables, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the tiny checkpoint of a family."""

    def write(name: str) -> Path:
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        CHECKPOINTS[name](folder)
        return folder

    return write
