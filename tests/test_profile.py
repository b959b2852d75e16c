"""sis profile: the parts of a token add up, the text is the same, and nothing is in the way when it is off."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from workbench import inside, interrupted, refused, sis

from sis_core import hookimpl
from sis_core.backend import Backend, BackendOptions, Forward, Layer
from sis_core.backends.bind import bind
from sis_core.backends.native.memory import Arena
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.block import Attention, Block, Network
from sis_core.discovery.plugin import Plugin
from sis_core.registry import Registry
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.texts.language_model import load
from sis_core.workbench.profiling import NAME, Recorder, profile_text, profiling, summarise, trace_events
from sis_core.workbench.profiling.binding import part_name

PROMPT = "Once upon a time"


def profiled(path: Path, registry: Registry, backend: str | None, n: int = 6) -> tuple[str, Recorder, tuple[str, ...]]:
    wrapped, recorder = profiling(registry, backend)
    with load(path, registry=wrapped, backend=NAME) as model:
        text = profile_text(model, recorder, PROMPT, n_tokens=n, samplers="top-k=5;temperature=0.9")
        return text, recorder, model.grains


def test_spans_nest() -> None:
    recorder = Recorder()
    with recorder.span("outer"):
        with recorder.span("inner", "someone"):
            pass
        with pytest.raises(ValueError, match="x"), recorder.span("failing"):
            raise ValueError("x")
    inner, failing, outer = recorder.spans
    assert outer.inner == inner.ns + failing.ns
    assert outer.self_ns == outer.ns - outer.inner >= 0


def test_parts_add_up_to_the_whole(random_model: Path) -> None:
    text, recorder, grains = profiled(random_model, Registry.load(), "numpy", n=8)
    assert text
    assert grains == ("numpy attention + numpy feed-forward",) * 2
    found = summarise(recorder.spans)
    assert found.n_tokens == 6
    assert sum(row.ms for row in found.parts) == pytest.approx(found.ms, rel=1e-6)
    assert sum(row.ms for row in found.plugins) == pytest.approx(found.ms, rel=1e-6)
    assert sum(row.share for row in found.parts) == pytest.approx(1)
    names = [row.name for row in found.parts]
    assert names[:4] == ["embedding", "attention", "feed-forward", "logits"]
    assert names[4:7] == ["sampler top-k", "sampler temperature", "draw"]
    assert [row.name for row in found.layers] == ["0 attention", "0 feed-forward", "1 attention", "1 feed-forward"]
    assert {row.name for row in found.linears} == {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output",
    }  # fmt: skip
    assert {row.name for row in found.plugins} == {"core", "numpy", "samplers"}
    assert next(row for row in found.parts if row.name == "attention").calls == 2


def test_the_text_is_that_of_a_normal_run(random_model: Path) -> None:
    registry = Registry.load()
    text, _, _ = profiled(random_model, registry, "numpy", n=10)
    with load(random_model, registry=registry, backend="numpy") as model:
        options = {"samplers": "top-k=5;temperature=0.9", "seed": 0, "max_tokens": 10, "ignore_end": True}
        assert text == "".join(model.generate(PROMPT, **options))


def test_a_whole_forward_is_one_part(random_model: Path) -> None:
    _, recorder, grains = profiled(random_model, Registry.load(), "stub")
    found = summarise(recorder.spans)
    assert grains == ("stub", "stub")
    assert "whole model" in [row.name for row in found.parts]
    assert found.layers == ()
    assert sum(row.ms for row in found.parts) == pytest.approx(found.ms, rel=1e-6)


class LayerBackend(Backend):
    """Answers by the layer; ``picky`` only for whole blocks."""

    name, score = "bylayer", 50
    picky = False

    def layer(self, block: Block, options: BackendOptions) -> Layer | None:
        return None if self.picky and len(block.ops) < 2 else ReferenceLayer.of(block, ReferenceLinear)

    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [self]


class WholeBackend(LayerBackend):
    """Answers for the whole model, and by the layer when asked."""

    name = "all-at-once"

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
        return bind(network, [], options)


@pytest.mark.skipif(kind_of_this_machine() is None, reason="no native backend for this machine")
@pytest.mark.parametrize("whole", [False, True])
def test_no_more_bytes_are_bound_than_planned(random_model: Path, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Counted(Arena):
        def take(self, n_bytes: int) -> int:
            taken.append(n_bytes)
            return super().take(n_bytes)

    monkeypatch.setattr("sis_core.backends.native.weights.Arena", Counted)
    backend = kind_of_this_machine()
    assert backend is not None
    wrapped, recorder = profiling(Registry.load(), backend.name, whole=whole)
    with load(random_model, registry=wrapped, backend=NAME, gradual=False) as model:
        assert profile_text(model, recorder, PROMPT, n_tokens=3, samplers="greedy")
        assert ("whole model" in [row.name for row in summarise(recorder.spans).parts]) is whole
        assert 0 < sum(taken) <= model.fit.plan.packed
        tables = model.network.embedding.weight.nbytes  # copied beside, or left to Python
        assert sum(taken) + tables >= model.fit.plan.packed, "the plan is no guess far above"


def test_the_reference_keeps_to_as_many_threads(random_model: Path) -> None:
    wrapped, _ = profiling(Registry.load(), "numpy")
    with load(random_model, registry=wrapped, backend=NAME, n_threads=3) as model:
        assert isinstance(model.forward, SequentialForward)
        assert model.forward.n_threads == 3


@pytest.mark.parametrize("whole", [False, True])
def test_a_whole_forward_is_taken_apart_where_its_backend_has_layers(random_model: Path, whole: bool) -> None:
    registry = Registry([*Registry.load().plugins, Plugin("mine", WholeBackend())])
    wrapped, recorder = profiling(registry, "all-at-once", whole=whole)
    with load(random_model, registry=wrapped, backend=NAME) as model:
        profile_text(model, recorder, PROMPT, n_tokens=4, samplers="greedy")
    found = summarise(recorder.spans)
    assert bool(found.layers) is not whole
    assert ("whole model" in [row.name for row in found.parts]) is whole
    assert recorder.note == ("" if whole else "mine runs the whole model in one call; here it is timed part by part")


@pytest.mark.parametrize(
    ("picky", "parts"), [(False, ["attention", "feed-forward"]), (True, ["layer"])], ids=["splits", "whole"]
)
def test_a_layer_is_split_where_its_backend_allows(random_model: Path, picky: bool, parts: list[str]) -> None:
    plugin = LayerBackend()
    plugin.picky = picky
    loaded = Registry.load()
    registry = Registry([*loaded.plugins, Plugin("mine", plugin)])
    _, recorder, grains = profiled(random_model, registry, "bylayer")
    found = summarise(recorder.spans)
    assert [row.name for row in found.layers] == [f"{i} {part}" for i in range(2) for part in parts]
    assert all(row.owner == "mine" for row in found.layers)
    assert grains == (" + ".join(f"mine {part}" for part in parts),) * 2


def test_the_numbers_do_not_change(random_model: Path) -> None:
    registry = Registry.load()
    wrapped, _ = profiling(registry, "numpy")
    with load(random_model, registry=registry, backend="numpy") as plain:
        with load(random_model, registry=wrapped, backend=NAME) as timed:
            np.testing.assert_array_equal(plain.logits(PROMPT), timed.logits(PROMPT))
        attention = next(op for op in plain.network.blocks[0].ops if part_name(op) == "attention")
        assert not isinstance(attention, Attention)


def test_rows_that_were_wasted_are_shown(random_model: Path) -> None:
    """Guesses of a drafter: a text is the same, and what did not come is counted."""
    options = ["--samplers", "top-k=3;temperature=0.3", "--speculate", "lookup:shortest=1"]
    done = sis("profile", "-m", random_model, "-n", "80", *options)
    found = re.search(r"(\d+) rows fed ahead in (\d+) steps, (\d+) of them wasted", done.stdout)
    assert found, done.stdout + done.stderr
    ahead, steps, wasted = map(int, found.groups())
    assert steps + ahead - wasted == 80
    assert 0 < wasted < ahead
    assert f"guessed by lookup: {ahead} tokens, {ahead - wasted} of them right" in done.stdout


def test_a_trace_that_perfetto_opens(random_model: Path, tmp_path: Path) -> None:
    _, recorder, _ = profiled(random_model, Registry.load(), "numpy")
    trace: dict[str, Any] = json.loads(json.dumps(trace_events(recorder.spans, "title")))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(recorder.spans)
    assert all(
        event["ts"] >= 0 and event["dur"] >= 0 and {"pid", "tid", "name", "cat"} <= set(event) for event in events
    )
    assert {"layer 0 attention", "layer 1 feed-forward", "linear output.weight"} <= {event["name"] for event in events}
    ends: list[float] = []  # complete events of one thread must nest
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while ends and ends[-1] <= event["ts"]:
            ends.pop()
        assert not ends or event["ts"] + event["dur"] <= ends[-1] + 1e-3
        ends.append(event["ts"] + event["dur"])


def test_the_program(random_model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    done = sis("profile", random_model, "-n", 5, "--backend", "numpy", "--trace", trace)
    assert done.returncode == 0, done.stderr
    assert "ms a token" in done.stdout.splitlines()[0]
    for line in ("part\tplugin\tms/token", "layer\tplugin\tms/token", "plugin\tms/token", "matrix\tplugin\tms/token"):
        assert line in done.stdout
    assert "\x1b" not in done.stdout
    assert len(json.loads(trace.read_text())["traceEvents"]) > 50
    found = json.loads(sis("profile", random_model, "-n", 5, "--json", "--samplers", "greedy").stdout)
    assert found["n_tokens"] == 3
    assert "sampler greedy" in [row["name"] for row in found["parts"]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--on-error", "degrade"], "figures of a run that may guess are worth nothing"),
        (["--backend", "warp"], "no installed plugin brings the backend 'warp'"),
        (["--prompt", "a" * 127], "has no room after the prompt"),
        (["--prompt", "a" * 400], "does not fit into the context"),
        (["--trace", "no/such/t.json"], "does not exist"),
        (["--samplers", "top-q"], "no installed plugin brings the sampler 'top-q'"),
    ],
)
def test_bad_options(
    random_model: Path, tmp_path: Path, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(inside("profile", random_model, "-n", 4, *args), message)


def test_ctrl_c(tmp_path: Path) -> None:
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.metadata(llama__context_length=1 << 20))
    interrupted("profile", model, "-n", 1 << 19)
