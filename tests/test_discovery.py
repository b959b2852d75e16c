"""Nothing that a plugin does costs more than its own line: pairs of hooks, and the ways in which one of them fails."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sis_core
from sis_core import hookimpl, hookspecs
from sis_core.backend import Backend
from sis_core.chat import ChatFormat
from sis_core.cluster import Cluster
from sis_core.discovery.guard import Guard
from sis_core.drafter import Drafter
from sis_core.eviction import Eviction
from sis_core.quant import F32Format
from sis_core.registry import Registry
from sis_core.sampler import Filter
from sis_core.source import Source
from sis_core.texts.chain_text import make_chain

HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("sis_register_"))
PAIRS = list(itertools.permutations(HOOKS, 2))


def fail(error: BaseException) -> Callable[[], Any]:
    def hook() -> Any:
        raise error

    return hook


def endless() -> Iterator[Any]:
    yield object()
    raise AssertionError("asked for more after junk")


class UnshowableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


class Nameless:
    """A record whose every attribute raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("touched")


WAYS: dict[str, Callable[[], Any]] = {
    "raises": fail(RuntimeError("no")),
    "exits": fail(SystemExit(3)),
    "interrupts": fail(KeyboardInterrupt()),
    "unshowable": fail(UnshowableError()),
    "junk": lambda: [object()],
    "none": lambda: None,
    "number": lambda: 7,
    "late junk": endless,
    "raising record": lambda: [Nameless()],
}


class Fine(Filter):
    name = "fine"

    def apply(self, logits: Any) -> None: ...


class FineBackend(Backend):
    name = "fine"


class FineSource(Source):
    name = "fine"

    def resolve(self, reference: str, progress: Any = None) -> None:
        return None


class FineFormat(F32Format):
    name = "FINE"
    type_id = None


class FineChat(ChatFormat):
    name = "fine"

    def open(self, model: Any, template: str | None) -> None:
        return None


class FineDrafter(Drafter):
    name = "fine"

    def start(self, context: Any) -> Any: ...


class FineCluster(Cluster):
    name = "fine"

    def join(self, address: str = "") -> Any: ...


class FineEviction(Eviction):
    name = "fine"
    keep, window = 64, 32

    def rate(self, attention: Any) -> Any: ...


FINE: dict[str, Any] = {
    "sis_register_samplers": Fine,
    "sis_register_backends": FineBackend(),
    "sis_register_sources": FineSource(),
    "sis_register_quant_formats": FineFormat(),
    "sis_register_chat_formats": FineChat(),
    "sis_register_drafters": FineDrafter,
    "sis_register_clusters": FineCluster(),
    "sis_register_evictions": FineEviction,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("bad", "good"), [pair for pair in PAIRS if pair[1] in FINE], ids="-".join)
def test_a_hook_that_fails_costs_its_own_line(bad: str, good: str, way: str) -> None:
    hooks = {bad: hookimpl(WAYS[way], specname=bad), good: hookimpl(lambda: [FINE[good]], specname=good)}
    registry = Registry.of(SimpleNamespace(**hooks, __name__="stranger"))
    registry.load_all()
    (stranger,) = [plugin for plugin in registry.plugins if plugin.name == "stranger"]
    assert stranger.error is not None
    assert stranger.error.startswith(f"{bad} failed: ")
    kind = good.removeprefix("sis_register_")
    assert stranger.offers == {kind: [FINE[good].name]}  # what its other hook brings works
    assert registry.get(kind, FINE[good].name) is FINE[good]
    assert registry.get("quant_formats", "F16").name == "F16"  # and so does everybody else


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "raise KeyboardInterrupt", "import nothing_there", "1 +"])
def test_an_import_that_fails_costs_its_own_line(line: str, tmp_path: Path) -> None:
    package = tmp_path / "stranger-1.dist-info"
    package.mkdir()
    (tmp_path / "stranger.py").write_text(line + "\n")
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[sis]\nstranger = stranger\n")
    done = subprocess.run(
        [sys.executable, "-m", "sis_core", "generate", "--seed", "1", "-n", "2", "Once"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "sis: ended after 2 tokens (-n)\n")
    assert done.stdout.startswith("Once")


def test_a_name_that_raises_later_is_asked_once() -> None:
    class Fickle(Fine):
        asked = 0

    class Meta(type(Fine)):  # type: ignore[misc]
        @property
        def name(cls) -> str:
            cls.asked += 1
            if cls.asked > 1:
                raise RuntimeError("no")
            return "fickle"

    fickle = Meta("Fickle", (Fine,), {"asked": 0})
    registry = Registry.of(SimpleNamespace(sis_register_samplers=hookimpl(lambda: [fickle], specname=None)))
    for _ in range(3):
        assert registry.find("samplers", "fickle") is fickle
        assert "fickle" in registry.names("samplers")
        assert registry.clashes("samplers") == {}


def test_the_user_can_still_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), Guard():
        signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with Guard() as guard:
        raise KeyboardInterrupt
    assert guard.reason == "KeyboardInterrupt: "
    assert signal.getsignal(signal.SIGINT) is before


def test_a_source_that_raises_is_named_only_where_it_was_asked() -> None:
    class Broken(FineSource):
        name = "broken"

        def resolve(self, reference: str, progress: Any = None) -> None:
            raise ZeroDivisionError("no")

    from sis_core.source import FileSource, resolve

    sources = [FileSource(), Broken()]
    assert resolve("missing.gguf", sources) == Path("missing.gguf")
    with pytest.raises(sis_core.SisError, match="the source 'broken' failed: ZeroDivisionError: no"):
        resolve("broken:x", sources)


def test_sources_are_not_even_registered_for_a_file_that_is_here(tmp_path: Path) -> None:
    class Plugin:
        @hookimpl
        def sis_register_sources(self) -> list[Any]:
            raise AssertionError("nobody needs them")

    registry, path = Registry.of(Plugin()), tmp_path / "m.GGUF"
    path.write_bytes(b"")
    assert registry.sources_for(str(path)) == ()
    assert [plugin.error for plugin in registry.plugins] == [None, None]
    for asked in (None, "", str(tmp_path), str(path.with_name("other.gguf")), "\0.gguf", "shop:one"):
        assert registry.sources_for(asked) == registry.records("sources")
    assert "nobody needs them" in str(registry.plugins[1].error)


def test_samplers_that_raise_when_they_are_made_are_named() -> None:
    class Broken(Fine):
        name = "broken"

        def __init__(self) -> None:
            raise ZeroDivisionError("no")

    registry = Registry.of(SimpleNamespace(sis_register_samplers=hookimpl(lambda: [Broken])))
    with pytest.raises(sis_core.SisError, match="broken"):
        make_chain(registry, samplers="broken")
