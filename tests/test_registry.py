"""The registry: broken plugins are one line, clashes are settled, and no hook is called while tokens flow."""

from __future__ import annotations

import dataclasses
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sis_llama

from sis_core import hookimpl, hookspecs
from sis_core.backend import Backend, BackendOptions
from sis_core.backends.bind import usable
from sis_core.discovery.plugin import Plugin
from sis_core.errors import PluginError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.registry import Registry
from sis_core.texts.session import Session


def format_named(format_name: str, id: int | None = None) -> QuantFormat:
    class Format(BlockFormat):
        name, type_id, block_size, type_size = format_name, id, 1, 1

        def dequantize_blocks(self, blocks: Any) -> Any:
            return blocks.astype(np.float32)

    return Format()


def plugin(name: str, **hooks: Any) -> SimpleNamespace:
    """A plugin object; each hook is given as what it returns, or as a function to call."""

    def made(value: Any) -> Any:
        return hookimpl(value if callable(value) else lambda: value)

    return SimpleNamespace(__name__=name, **{f"sis_register_{kind}": made(value) for kind, value in hooks.items()})


def error_of(registry: Registry, name: str) -> str:
    registry.load_all()
    return next(p.error for p in registry.plugins if p.name == name) or ""


def explode() -> Any:
    raise ValueError("no luck today\nsecond line")


def test_records_keep_their_plugin() -> None:
    mine = format_named("MINE")
    registry = Registry.of(plugin("a", quant_formats=[mine]))
    assert registry.get("quant_formats", "MINE") is mine
    assert registry.owner("quant_formats", mine) == "a"
    assert registry.owner("quant_formats", registry.get("quant_formats", "F16")) == "core"


def test_a_broken_hook_is_one_line_and_the_rest_works() -> None:
    registry = Registry.of(plugin("bad", quant_formats=explode), plugin("good", quant_formats=[format_named("GOOD")]))
    assert registry.get("quant_formats", "GOOD")
    assert error_of(registry, "bad") == "sis_register_quant_formats failed: ValueError: no luck today"
    assert not error_of(registry, "good")


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([42], "returned 42, which is not an instance of QuantFormat"),
        ([QuantFormat], "which is not an instance of QuantFormat: return QuantFormat()"),
        (7, "TypeError: 'int' object is not iterable"),
        (None, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_hook_that_returns_nonsense(returned: Any, reason: str) -> None:
    registry = Registry.of(plugin("odd", quant_formats=lambda: returned))
    assert reason in error_of(registry, "odd")


def test_options_that_nobody_would_see() -> None:
    from sis_core.sampler import Filter, number_option

    class Bare(Filter):
        name = "bare"
        strength: float = number_option(1.0, help="how much")

        def apply(self, logits: Any) -> None:
            """Leave them."""

    reason = error_of(Registry.of(plugin("bare", samplers=[Bare])), "bare")
    assert reason.endswith("has the option strength, but is no attrs class: decorate it with attrs.frozen")
    data = dataclasses.dataclass(type("Data", (Filter,), {"__annotations__": {"n": int}, "n": 1, "name": "data"}))
    assert "is a dataclass: decorate it with attrs.frozen" in error_of(Registry.of(plugin("d", samplers=[data])), "d")


def test_a_misspelt_hook_is_caught() -> None:
    registry = Registry.of(plugin("typo", quant_format=[]))
    assert (
        "sis_register_quant_format, but there is no such hook (did you mean 'sis_register_quant_formats'?)"
        in error_of(registry, "typo")
    )


def test_an_unmarked_hook_is_caught() -> None:
    module = SimpleNamespace(__name__="bare", sis_register_samplers=list)
    assert "sis_register_samplers is not marked with @sis_core.hookimpl" in error_of(Registry.of(module), "bare")


def test_a_plugin_without_hooks_is_caught() -> None:
    assert "has none of the hooks" in error_of(Registry.of(SimpleNamespace(__name__="empty")), "empty")


def test_another_api_version_is_refused_by_name() -> None:
    old = plugin("old", quant_formats=[format_named("OLD")])
    old.sis_api = hookspecs.SIS_API + 1
    registry = Registry.of(old)
    assert (
        error_of(registry, "old")
        == f"speaks sis_api {hookspecs.SIS_API + 1}, but this sis-core speaks {hookspecs.SIS_API}"
    )
    assert registry.find("quant_formats", "OLD") is None


def test_two_plugins_claim_one_name() -> None:
    first, second = format_named("SAME"), format_named("SAME")
    plugins = plugin("one", quant_formats=[first]), plugin("two", quant_formats=[second])
    registry = Registry.of(*plugins)
    assert registry.clashes("quant_formats") == {"SAME": ["one", "two"]}
    assert registry.get("quant_formats", "F32")  # only the name in question is in trouble
    with pytest.raises(
        PluginError, match=r"'SAME' is claimed by two plugins: one and two\. Choose one with --prefer SAME=one"
    ):
        registry.get("quant_formats", "SAME")
    assert Registry.of(*plugins, prefer={"SAME": "two"}).get("quant_formats", "SAME") is second


def test_two_plugins_claim_one_type_id() -> None:
    plugins = plugin("one", quant_formats=[format_named("A", 42)]), plugin("two", quant_formats=[format_named("B", 42)])
    with pytest.raises(PluginError, match=r"'type 42' is claimed by two plugins: one and two.*--prefer 42=one"):
        Registry.of(*plugins).get("quant_formats", "type 42")
    assert Registry.of(*plugins, prefer={"42": "two"}).get("quant_formats", "type 42").name == "B"


def test_what_is_missing_says_what_to_install() -> None:
    registry = Registry.of()
    with pytest.raises(PluginError, match=r"no installed plugin brings the format 'Q4_0'\. `pip install sis-q4_0`"):
        registry.get("quant_formats", "Q4_0")
    with pytest.raises(
        PluginError, match=r"the backend 'nunpy' \(did you mean 'numpy'\?\)\. Installed are: numpy, stub"
    ):
        registry.get("backends", "nunpy")


def test_a_single_file_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sis_core import hookimpl\nfrom sis_core.source import Source\n"
        "class Here(Source):\n    name = 'here'\n"
        "    def resolve(self, reference, progress=None):\n        return None\n"
        "@hookimpl\ndef sis_register_sources():\n    return [Here()]\n"
    )
    registry = Registry.load(files=[path])
    assert registry.get("sources", "here").name == "here"
    assert next(p for p in registry.plugins if p.name == "mine").origin == str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("import nowhere_at_all", "ModuleNotFoundError"), ("1/0", "ZeroDivisionError"), ("(", "SyntaxError")],
)
def test_a_broken_single_file_is_an_error(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(PluginError, match=rf"--plugin .*broken\.py: cannot be imported: {reason}"):
        Registry.load(files=[path])
    with pytest.raises(PluginError, match="no such file"):
        Registry.load(files=[tmp_path / "absent.py"])


def install(folder: Path, name: str, code: str) -> None:
    """Put a distribution with an entry point into ``folder``, as an installer would."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[sis]\n{name} = {name}\n")


def test_a_broken_installed_plugin_changes_nothing_but_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Registry.load()
    before.load_all()
    install(tmp_path, "shattered", "raise RuntimeError('glass')")
    monkeypatch.syspath_prepend(str(tmp_path))
    after = Registry.load()
    after.load_all()
    known = {p.name: (p.offers, p.error) for p in before.plugins}
    now = {p.name: (p.offers, p.error) for p in after.plugins}
    assert now.pop("shattered") == ({}, "cannot be imported: RuntimeError: glass")
    assert now == known
    assert next(p for p in after.plugins if p.name == "shattered").version == "1.2"


def test_disabled_plugins_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "unwanted", "raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SIS_DISABLED_PLUGINS", "unwanted, llama")
    registry = Registry.load()
    assert {"unwanted", "llama"}.isdisjoint(p.name for p in registry.plugins)
    assert "unwanted" not in sys.modules


def test_a_misspelt_name_among_the_disabled_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIS_DISABLED_PLUGINS", "llama, quen,")
    Registry.load()
    assert caplog.messages == ["SIS_DISABLED_PLUGINS: no plugin is called 'quen' (did you mean 'qwen'?)"]


def test_every_part_of_this_repository_works() -> None:
    registry = Registry.load()
    registry.load_all()
    ours = {
        point.name for point in metadata.entry_points(group="sis") if point.dist and point.dist.name.startswith("sis-")
    }
    assert {p.name: p.error for p in registry.plugins if p.name in ours and p.error} == {}
    for kind in registry.kinds:
        assert registry.clashes(kind) == {}, kind


class Counting(Backend):
    """Counts how often its plugin is asked."""

    name, score = "counting", 5
    calls = 0


def test_no_hook_is_called_while_tokens_flow(random_model: Path) -> None:
    calls: list[str] = []

    def counted(kind: str, value: Any) -> Any:
        def hook() -> Any:
            calls.append(kind)
            return value

        return hook

    kinds = ["sources", "architectures", "tokenizers", "quant_formats", "backends", "samplers"]
    watcher = plugin("watcher", **{kind: counted(kind, [Counting()] if kind == "backends" else []) for kind in kinds})
    registry = Registry.of(sis_llama, watcher)
    monitored: list[str] = []
    registry._manager.add_hookcall_monitoring(before=lambda name, *_: monitored.append(name), after=lambda *_: None)
    with open_model(Model, random_model, registry, options=BackendOptions()) as model, Session(model) as session:
        session.feed([256, 1, 2])
        at_start = list(calls)
        for token in range(20):
            session.feed([token])
        assert calls == at_start
    assert len(calls) == len(set(calls)), "a hook is called at most once"
    assert monitored == []


def test_a_name_that_is_taken_does_not_harm_its_holder() -> None:
    registry = Registry.of(
        plugin("one", quant_formats=[format_named("A")]), plugin("one", quant_formats=[format_named("B")])
    )
    registry.load_all()
    assert [p.error for p in registry.plugins] == [
        None,
        None,
        "the name 'one' is taken by the plugin of another module",
    ]
    assert registry.names("quant_formats") == ["A", "BF16", "F16", "F32", "type 0", "type 1", "type 30"]


def test_a_file_named_like_a_plugin_does_not_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "llama.py"
    path.write_text("from sis_core import hookimpl\n@hookimpl\ndef sis_register_sources():\n    return []\n")
    registry = Registry.load(files=[path], keep_broken=True)
    assert registry.get("architectures", "llama").names
    fault = "the name 'llama' is taken by the plugin of sis-llama"
    assert [p.error for p in registry.plugins if p.origin == str(path)] == [fault]
    with pytest.raises(PluginError, match=rf"--plugin .*llama\.py: {fault}"):
        Registry.load(files=[path])


def test_a_plugin_cannot_end_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "quitter", "raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))

    def leave() -> Any:
        raise SystemExit(3)

    assert error_of(Registry.load(), "quitter") == "cannot be imported: SystemExit: 0"
    assert (
        error_of(Registry.of(plugin("leaver", sources=leave)), "leaver") == "sis_register_sources failed: SystemExit: 3"
    )


def test_records_leave_out_who_lost_a_name() -> None:
    first, second = format_named("SAME"), format_named("SAME")
    plugins = plugin("one", quant_formats=[first]), plugin("two", quant_formats=[second])
    records = Registry.of(*plugins, prefer={"SAME": "two"}).records("quant_formats")
    assert second in records
    assert first not in records


def test_broken_backends_are_idle_or_refused() -> None:
    class Nervous(Backend):
        name, score = "nervous", 9

        def idle_reason(self) -> str | None:
            raise OSError("no such library")

    class Vain(Backend):
        name = "vain"
        score = "high"  # type: ignore[assignment]

    registry = Registry.of(plugin("a", backends=[Nervous()]), plugin("b", backends=[Vain()]))
    assert [backend.name for backend in usable(registry.records("backends"))] == ["numpy"]
    assert "whose score is not a number" in error_of(registry, "b")


def test_the_remedy_knows_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIS_DISABLED_PLUGINS", "llama")
    with pytest.raises(PluginError, match="sis-llama is switched off by SIS_DISABLED_PLUGINS"):
        Registry.load().get("architectures", "llama")
    broken = Plugin("llama", distribution=metadata.distribution("sis-llama"), error="cannot be imported: OSError: disk")
    with pytest.raises(PluginError, match="sis-llama is installed, but cannot be imported: OSError: disk"):
        Registry([broken]).get("architectures", "llama")
