"""sis quantize and sis imatrix: formats, rules, refusals, and runs that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from workbench import SIS, format_file, inside, refused, sis

from sis_core.errors import ContextError, FormatError, SisError, SourceError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.weights import file_weights
from sis_core.quant import BlockFormat
from sis_core.registry import Registry
from sis_core.texts.language_model import load
from sis_core.workbench.quantizer import Importance, make_plan, parse_rule, quantize_file
from sis_core.workbench.quantizer.collect import NAME, counting, measure
from sis_core.workbench.quantizer.plan import find_format
from sis_core.workbench.scan import check_weights


def types(path: Path) -> dict[str, str]:
    with GGUFFile.open(path) as file:
        return {info.name: info.type_name for info in file.tensors.values()}


def work_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.sis-work")


@pytest.fixture
def registry() -> Registry:
    return Registry.load()


def make(source: Path, target: Path, name: str, registry: Registry, **options: Any) -> Path:
    """Quantise in this process."""
    with GGUFFile.open(source) as file:
        quantize_file(file, target, make_plan(file, registry, name, **options), n_threads=2)
    return target


def test_matrices_change_and_the_rest_stays(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = make(random_model, tmp_path / "out.gguf", "q8_0", registry)
    for name, type in types(out).items():
        assert type == ("F32" if "norm" in name else "Q8_0"), name
    with GGUFFile.open(out) as made, GGUFFile.open(random_model) as source:
        for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
            np.testing.assert_array_equal(made.raw(name), source.raw(name))
        ours, theirs = file_weights(made, registry), file_weights(source, registry)
        for name, weight in ours.items():
            np.testing.assert_allclose(weight.dequantize(), theirs[name].dequantize(), atol=0.02)
        check_weights(ours.values())
        assert made.metadata["general.file_type"] == 7
        assert made.metadata["general.quantization_version"] == 2
        assert made.metadata["general.name"] == "random llama"
    assert not work_folder(out).exists()


def test_bytes_are_those_of_the_format_itself(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = make(random_model, tmp_path / "out.gguf", "Q4_0", registry, pure=True)
    format = find_format(registry, "q4_0", "")
    for name, values in tiny_models.tensors().items():
        if values.ndim == 2:
            with GGUFFile.open(out) as made:
                np.testing.assert_array_equal(made.raw(name), format.quantize(values).reshape(-1))


def test_the_head_gets_more_bits_unless_pure(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    mixed = types(make(random_model, tmp_path / "a.gguf", "q4_0", registry))
    assert (mixed["output.weight"], mixed["token_embd.weight"], mixed["blk.0.attn_q.weight"]) == (
        "Q8_0",
        "Q4_0",
        "Q4_0",
    )
    assert types(make(random_model, tmp_path / "b.gguf", "q4_0", registry, pure=True))["output.weight"] == "Q4_0"


def test_rules_by_pattern_first_match_wins(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    rules = ("blk.0.ffn_down.weight=keep", "blk.*.ffn_down.weight=f16", "blk.*=q8_0")
    done = inside(
        "quantize", random_model, out, "--to", "q4_0", *(part for rule in rules for part in ("--tensor", rule))
    )
    assert done.returncode == 0, done.stderr
    found = types(out)
    assert found["blk.0.ffn_down.weight"] == "F32"
    assert found["blk.1.ffn_down.weight"] == "F16"
    assert found["blk.1.attn_q.weight"] == "Q8_0"
    assert found["blk.1.attn_norm.weight"] == "F32"
    assert found["token_embd.weight"] == "Q4_0"


def test_dry_run_and_json(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    done = inside("quantize", random_model, out, "--to", "q8_0", "--dry-run")
    assert done.returncode == 0
    assert "blk.0.attn_q.weight\t32 × 32\tF32\tQ8_0" in done.stdout
    assert not out.exists()
    made = json.loads(inside("quantize", random_model, out, "--to", "q8_0", "--json").stdout)
    assert made["bytes"] == out.stat().st_size
    assert 8.5 < made["bits_per_weight"] < 8.8
    assert {row["to"] for row in made["tensors"]} == {"Q8_0", "F32"}
    assert "\x1b" not in done.stdout + done.stderr


def test_the_quantised_model_runs(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = make(random_model, tmp_path / "out.gguf", "q8_0", registry)
    with load(random_model, registry=registry) as original, load(out, registry=registry) as made:
        ours, theirs = made.logits("Once").reshape(-1), original.logits("Once").reshape(-1)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99


# Refusals


def test_an_existing_output_needs_force(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("precious")
    refused(inside("quantize", random_model, out, "--to", "q8_0"), "out.gguf: exists already", "--force")
    assert out.read_text() == "precious"
    assert inside("quantize", random_model, out, "--to", "q8_0", "--force").returncode == 0
    assert types(out)["output.weight"] == "Q8_0"


def test_the_input_is_never_overwritten(random_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "in.gguf"
    shutil.copy(random_model, copy)
    os.symlink(copy, tmp_path / "link.gguf")
    for target in (copy, tmp_path / "link.gguf", tmp_path / "." / "in.gguf"):
        refused(inside("quantize", copy, target, "--to", "q8_0", "--force"), "the output would overwrite the input")
    assert copy.read_bytes() == random_model.read_bytes()


def test_a_folder_that_is_not_there(random_model: Path, tmp_path: Path) -> None:
    refused(inside("quantize", random_model, tmp_path / "no" / "out.gguf", "--to", "q8_0"), "does not exist")
    refused(inside("quantize", random_model, tmp_path, "--to", "q8_0"), "is a folder")


def test_a_quantised_input_needs_requantize(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    first, second = make(random_model, tmp_path / "a.gguf", "q8_0", registry), tmp_path / "b.gguf"
    refused(inside("quantize", first, second, "--to", "q4_0"), "tensors are quantised already", "--requantize")
    assert inside("quantize", first, second, "--to", "q4_0", "--requantize").returncode == 0
    assert inside("quantize", first, tmp_path / "c.gguf", "--to", "q8_0").returncode == 0, "nothing has to be decoded"


@pytest.fixture
def odd_model(tmp_path: Path) -> Path:
    """A file with a matrix of 20 columns."""
    path = tmp_path / "odd.gguf"
    writer = GGUFWriter(path, {"general.architecture": "none"})
    for name, shape in (("wide.weight", (32, 64)), ("odd.weight", (32, 20))):
        writer.add_tensor(name, shape, "F32", [np.ones(shape, np.float32)])
    writer.write()
    return path


def test_rows_that_do_not_divide(odd_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    args = ("quantize", odd_model, out, "--to", "q8_0")
    refused(inside(*args), "tensor odd.weight: rows of 20 values are not whole blocks of 32 of Q8_0", "--fallback")
    refused(inside(*args, "--fallback", "q4_0"), "nor of Q4_0")
    done = sis(*args, "--fallback", "q4_0", "--fallback", "f16")
    assert done.returncode == 0
    assert "odd.weight: rows of 20 values are not whole blocks of 32 of Q8_0: F16 instead" in done.stderr
    assert types(out) == {"wide.weight": "Q8_0", "odd.weight": "F16"}


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--to", "q9_9"], ["no installed plugin brings the format 'q9_9'", "formats that can be written are"]),
        (["--to", "iq2_xs"], ["the format IQ2_XS can only be read: it has no encoder", "formats that can be written"]),
        (["--to", "q8_0", "--tensor", "output.weigt=f16"], ["no tensor that can be quantised is called like"]),
        (["--to", "q8_0", "--tensor", "output.weight"], ["'output.weight' is not PATTERN=FORMAT"]),
        (["--to", "q8_0", "--fallback", "nope"], ["no installed plugin brings the format 'nope'"]),
        (["--to", "q8_0", "--imatrix", "absent.gguf"], ["absent.gguf: no such file"]),
    ],
)
def test_bad_options(random_model: Path, tmp_path: Path, args: list[str], parts: list[str]) -> None:
    done = inside("quantize", random_model, tmp_path / "out.gguf", *args)
    refused(done, parts[0])
    assert all(part.casefold() in done.stderr.casefold() for part in parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    weights = tiny_models.tensors()
    weights["blk.1.ffn_up.weight"][37, 5] = value
    model = tiny_models.write_model(tmp_path / "bad.gguf", weights=weights)
    done = inside("quantize", model, tmp_path / "out.gguf", "--to", "q8_0")
    refused(done, f"tensor blk.1.ffn_up.weight: row 37, column 5 is {value}")
    assert os.listdir(tmp_path) == ["bad.gguf"]


def test_weights_too_large_for_the_format(tmp_path: Path) -> None:
    weights = tiny_models.tensors()
    weights["blk.0.ffn_up.weight"][3, 5] = 1e6
    model = tiny_models.write_model(tmp_path / "large.gguf", weights=weights)
    refused(inside("quantize", model, tmp_path / "a.gguf", "--to", "f16"), "row 3 has values too large for F16")
    assert inside("quantize", model, tmp_path / "b.gguf", "--to", "bf16").returncode == 0


def test_a_full_disk_leaves_nothing(
    random_model: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))(10**6, 10**6, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match="but the disk has 1000 left"):
        make(random_model, tmp_path / "out.gguf", "q8_0", registry)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(random_model: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = sis("quantize", random_model, tmp_path / "out.gguf", "--to", "q8_0", preexec_fn=limit)
    refused(done, "out.gguf", "cannot be written")
    assert list(tmp_path.iterdir()) == []


class Wrong(BlockFormat):
    """A format whose encoder can be told to misbehave."""

    name, block_size, type_size = "WRONG", 16, 16
    fault = ""

    def dequantize_blocks(self, blocks: Any) -> Any:
        return blocks.view(np.int8).astype(np.float32)

    def quantize_blocks(self, values: Any) -> Any:
        if self.fault == "raises":
            raise ZeroDivisionError("no scale")
        return values.astype(np.int8) if self.fault == "type" else values.astype(np.int8).view(np.uint8)


@pytest.mark.parametrize(("fault", "message"), [("raises", "ZeroDivisionError: no scale"), ("type", "returned int8")])
def test_an_encoder_that_fails_is_named(random_model: Path, tmp_path: Path, fault: str, message: str) -> None:
    format = Wrong()
    format.fault = fault

    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [format]

    with pytest.raises(FormatError, match=f"tensor token_embd.weight: the format WRONG .*{message}"):
        make(random_model, tmp_path / "out.gguf", "wrong", Registry.of(Plugin()))
    assert list(tmp_path.iterdir()) == []


class Unfaithful(BlockFormat):
    """Eight bits and a scale for each block of 32, and an encoder that makes something else of them."""

    name, block_size, type_size = "UNFAITHFUL", 32, 34
    fault = ""

    def dequantize_blocks(self, blocks: Any) -> Any:
        return blocks[:, 2:].copy().view(np.int8) * blocks[:, :2].copy().view("<f2").astype(np.float32)

    def quantize_blocks(self, values: Any) -> Any:
        if self.fault == "random":
            return np.random.default_rng().integers(0, 256, (len(values), 34), np.uint8)
        if self.fault == "nothing":
            return np.zeros((len(values), 34), np.uint8)
        if self.fault == "order":
            values = values[:, ::-1]
        if self.fault == "not finite":
            return np.full((len(values), 34), 0x7F, np.uint8)
        scales = (abs(values).max(axis=1, keepdims=True) / np.float32(127)).astype("<f2")
        codes = np.rint(values / np.maximum(scales.astype(np.float32), 1e-8)).clip(-127, 127).astype(np.int8)
        if self.fault == "scale":
            scales = scales / np.float16(7)
        return np.hstack([scales.view(np.uint8), codes.view(np.uint8)])


def unfaithful(fault: str) -> Registry:
    format = Unfaithful()
    format.fault = fault

    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [format]

    return Registry.of(Plugin())


@pytest.mark.parametrize("fault", ["", "scale"])
def test_what_keeps_values_badly_for_its_bits_is_a_warning(
    fault: str, random_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(random_model, tmp_path / "out.gguf", "unfaithful", unfaithful(fault))
    assert (tmp_path / "out.gguf").exists()
    says = (
        "UNFAITHFUL keeps normal values within 0.86 of their size, where 8.5 bits should within 0.011: check it with "
    )
    assert [r.getMessage() for r in caplog.records] == [says + "sis_core.testing.check_quant_format"] * bool(fault)


@pytest.mark.parametrize("fault", ["random", "nothing", "order", "not finite"])
def test_what_was_written_is_read_back(fault: str, random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    says = r"token_embd\.weight: .* back are off by \S+ of their size, and UNFAITHFUL does not keep normal values"
    with pytest.raises(FormatError, match=says):
        make(random_model, out, "unfaithful", unfaithful(fault))
    assert list(tmp_path.iterdir()) == []


# Runs that are killed


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return format_file(folder, "slow", name="SLOW8", delay=0.15)


def start(random_model: Path, out: Path, slow: Path) -> subprocess.Popen[str]:
    """A slow run, once some tensors are finished."""
    args = [*SIS, "--plugin", str(slow), "quantize", str(random_model), str(out), "--to", "slow8", "--pure", "-t", "1"]
    running = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    done = work_folder(out) / "done"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        if done.exists() and len(done.read_text().splitlines()) >= 4:
            return running
        time.sleep(0.01)
    running.kill()
    raise AssertionError(running.communicate())


def test_a_killed_run_goes_on(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not out.exists()
    done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 2, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["resumed"] >= 4
    assert f"going on; {summary['resumed']} of 21 tensors are done" in done.stderr
    assert not work_folder(out).exists()
    other = tmp_path / "other.gguf"
    assert sis("--plugin", slow, "quantize", random_model, other, "--to", "slow8", "--pure").returncode == 0
    assert out.read_bytes() == other.read_bytes()


def test_torn_bytes_are_made_again(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    part = work_folder(out) / "model.gguf"
    with GGUFFile.open(part) as file:
        offset = file.tensors["token_embd.weight"].offset
    with part.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(64))
    assert sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure").returncode == 0
    with GGUFFile.open(out) as file:
        assert file.raw("token_embd.weight")[:64].any()


def test_another_command_starts_anew(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done = sis("quantize", random_model, out, "--to", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "the unfinished work of another command, or of a format that was changed, was there" in done.stderr
    assert types(out)["token_embd.weight"] == "Q8_0"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "plugins"]


def test_an_edited_format_starts_anew(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out, other = tmp_path / "out.gguf", tmp_path / "other.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    slow.write_text(slow.read_text().replace("127 / 2.0", "126 / 2.0"), "utf-8")
    command = ["--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 2, "--json"]
    done = sis(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] == 0
    assert "a format that was changed" in done.stderr
    assert sis(*(other if part == out else part for part in command)).returncode == 0
    assert out.read_bytes() == other.read_bytes()


def test_ctrl_c_keeps_the_work(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 1)
    assert "going on;" in done.stderr


def test_two_runs_do_not_meet(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGSTOP)  # so that it is not done before the other one begins
    try:
        done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 1)
        refused(done, f"out.gguf: is being written by process {running.pid}")
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


# Formats that GGUF has no id for, and ids that two plugins claim


def test_foreign_formats_in_one_file(random_model: Path, tmp_path: Path) -> None:
    one, two = format_file(tmp_path, "one", name="ONE8"), format_file(tmp_path, "two", name="two-8", block_size=32)
    out = tmp_path / "out.gguf"
    both = ("--plugin", one, "--plugin", two)
    done = sis(*both, "quantize", random_model, out, "--to", "one8", "--pure", "--tensor", "*.ffn_*.weight=TWO-8")
    assert done.returncode == 0, done.stderr
    found = types(out)
    assert (found["blk.0.attn_q.weight"], found["blk.0.ffn_up.weight"]) == ("ONE8", "two-8")
    with GGUFFile.open(out) as file:
        assert "general.file_type" not in file.metadata
        assert file.tensors["blk.0.ffn_up.weight"].package == ""  # a file's name may be somebody's package
    assert sis(*both, "generate", "-m", out, "-n", 3, "--ignore-end", "Once").returncode == 0
    missing = sis("--plugin", one, "generate", "-m", out, "-n", 3, "Once")
    refused(missing, "ffn_", "its format 'two-8' is not installed", "names no package", "with --plugin")
    assert sis("inspect", out).returncode == 0
    again = tmp_path / "again.gguf"
    rule = ("--tensor", "*.ffn_*.weight=keep")
    # What is only copied needs no codec: the plugin of the kept tensors is not here.
    done = sis("--plugin", one, "quantize", out, again, "--to", "q8_0", "--requantize", *rule)
    assert done.returncode == 0, done.stderr
    with GGUFFile.open(again) as file:
        assert file.tensors["blk.0.ffn_up.weight"].type_name == "two-8"


def test_two_plugins_claim_one_id(random_model: Path, tmp_path: Path) -> None:
    ours = format_file(tmp_path, "ours", name="OURS", type_id=200)
    theirs = format_file(tmp_path, "theirs", name="THEIRS", type_id=200, limit=64.0)
    out = tmp_path / "out.gguf"
    assert sis("--plugin", ours, "quantize", random_model, out, "--to", "ours", "--pure").returncode == 0
    assert types(out)["output.weight"] == "type 200"
    run = ("--plugin", ours, "--plugin", theirs, "generate", "-m", out, "-n", 4, "--sampler", "greedy", "Once")
    alone = sis("--plugin", ours, "generate", "-m", out, "-n", 4, "--sampler", "greedy", "Once")
    refused(sis(*run), "'type 200' is claimed by two plugins: ours and theirs", "--prefer 200=ours")
    assert sis(*run, "--prefer", "200=ours").stdout == alone.stdout != ""
    both = ("--plugin", ours, "--plugin", theirs, "quantize", random_model, tmp_path / "b.gguf", "--to", "ours")
    refused(sis(*both), "is claimed by two plugins: ours and theirs")
    refused(sis(*both, "--prefer", "200=theirs"), "type 200 is preferred to mean another format than OURS")
    assert sis(*both, "--prefer", "200=ours").returncode == 0


# Importance


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("Once upon a time there was a little hen who lived in a small red house. " * 12)
    return path


def test_importance_is_the_mean_square_of_inputs(random_model: Path, registry: Registry, tmp_path: Path) -> None:
    wrapped, sums = counting(registry)
    tokens = list(range(64))
    with load(random_model, registry=wrapped, backend=NAME) as model:
        found = measure(model, sums, tokens, n_ctx=32, dataset="numbers")
        last = np.concatenate([model.hidden([256, *tokens[i + 1 : i + 32]]) for i in (0, 32)])
    mean = found.mean("output.weight", (260, 32))
    assert mean is not None
    np.testing.assert_allclose(mean[0], (last.astype(np.float64) ** 2).mean(0), rtol=1e-4)
    assert len(found.sums) == 15
    assert found.n_chunks == 2
    found.write(tmp_path / "i.gguf")
    read = Importance.read(tmp_path / "i.gguf")
    assert (read.datasets, read.n_chunks, read.chunk_size) == (("numbers",), 2, 32)
    again = read.mean("output.weight", (260, 32))
    assert again is not None
    np.testing.assert_allclose(again, mean, rtol=1e-6)
    assert read.mean("token_embd.weight", (260, 32)) is None
    with pytest.raises(FormatError, match="but the tensor has 1 × 64"):
        read.mean("output.weight", (260, 64))
    with load(random_model, registry=wrapped, backend=NAME) as model, pytest.raises(ContextError, match="fewer than"):
        measure(model, sums, tokens, n_ctx=65)


def test_imatrix_file_has_the_layout_of_llama_cpp(random_model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "imatrix.gguf"
    done = inside("imatrix", random_model, "--text", text, "-o", out, "--ctx", 64, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tensors"] == 15
    with GGUFFile.open(out) as file:
        assert file.metadata["general.type"] == "imatrix"
        assert list(file.metadata["imatrix.datasets"]) == [b"text.txt"]  # type: ignore[arg-type]
        assert file.metadata["imatrix.chunk_size"] == 64
        assert file.tensors["blk.0.ffn_down.weight.in_sum2"].shape == (1, 64)
        assert file.tensors["blk.0.ffn_down.weight.counts"].shape == (1, 1)
    refused(inside("imatrix", random_model, "--text", text, "-o", out, "--ctx", 64), "exists already")
    short = inside("imatrix", random_model, "--text", text, "-o", tmp_path / "b.gguf", "--ctx", 100_000)
    refused(short, "fewer than one chunk of 100000")


class Weighing(BlockFormat):
    """Stores zero for columns that do not matter."""

    name, block_size, type_size = "WEIGHING", 16, 64

    def dequantize_blocks(self, blocks: Any) -> Any:
        return blocks.view(np.float32)

    def quantize_blocks(self, values: Any) -> Any:
        return np.ascontiguousarray(values).view(np.uint8)

    def quantize_weighted(self, values: Any, importance: Any) -> Any:
        return self.quantize(np.where(importance > 0, values, np.float32(0)))


def test_importance_reaches_the_format(random_model: Path, tmp_path: Path) -> None:
    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [Weighing()]

    registry = Registry.of(Plugin())
    sums = np.ones((1, 32))
    sums[0, :7] = 0
    importance = Importance({"blk.0.attn_q.weight": sums}, {"blk.0.attn_q.weight": np.array([4.0])}, ("t",), 1, 4, "i")
    out = tmp_path / "out.gguf"
    with GGUFFile.open(random_model) as file:
        quantize_file(file, out, make_plan(file, registry, "weighing"), importance=importance)
    with GGUFFile.open(out) as file:
        weights = file_weights(file, registry)
        q, k = (weights[f"blk.0.attn_{name}.weight"].dequantize() for name in "qk")
        assert file.metadata["quantize.imatrix.chunks_count"] == 1
    assert not q[:, :7].any()
    assert q[:, 7:].all()
    assert k.all()


def test_importance_of_experts_one_by_one(tmp_path: Path) -> None:
    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [Weighing()]

    model, out = tmp_path / "experts.gguf", tmp_path / "out.gguf"
    writer = GGUFWriter(model, {"general.architecture": "none"})
    writer.add_tensor("blk.0.ffn_up_exps.weight", (3, 20, 32), "F32", [np.ones((3, 20, 32), np.float32)])
    writer.write()
    sums = np.ones((3, 32))
    sums[1, 5] = sums[2, 6] = 0
    counts = np.array([4.0, 4.0, 4.0])
    importance = Importance({"blk.0.ffn_up_exps.weight": sums}, {"blk.0.ffn_up_exps.weight": counts})
    with GGUFFile.open(model) as file:
        quantize_file(file, out, make_plan(file, Registry.of(Plugin()), "weighing"), importance=importance)
    with GGUFFile.open(out) as file:
        values = file_weights(file, Registry.of(Plugin()))["blk.0.ffn_up_exps.weight"].dequantize()
    expected = np.ones((3, 20, 32), np.float32)
    expected[1, :, 5] = expected[2, :, 6] = 0
    np.testing.assert_array_equal(values, expected)


def test_importance_as_ggml_writes_it(tmp_path: Path) -> None:
    """ggml drops dimensions of 1, and an expert that saw nothing has a count of 0."""
    path = tmp_path / "ggml.gguf"
    writer = GGUFWriter(path, {"general.type": "imatrix"})
    writer.add_tensor("a.weight.in_sum2", (4,), "F32", [np.array([2, 4, 6, 8], np.float32)])
    writer.add_tensor("a.weight.counts", (1,), "F32", [np.array([2], np.float32)])
    writer.add_tensor("b.weight.in_sum2", (2, 4), "F32", [np.full((2, 4), 3, np.float32)])
    writer.add_tensor("b.weight.counts", (2, 1), "F32", [np.array([[3], [0]], np.float32)])
    writer.write()
    found = Importance.read(path)
    np.testing.assert_array_equal(found.mean("a.weight", (8, 4)), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(found.mean("b.weight", (2, 8, 4)), np.ones((2, 4)))


def test_importance_that_is_none(random_model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no importance"):
        Importance.read(random_model)
    done = inside("imatrix", random_model, "--text", text, "-o", tmp_path / "i.gguf", "--ctx", 64)
    assert done.returncode == 0
    done = sis("quantize", random_model, tmp_path / "o.gguf", "--to", "q8_0", "--imatrix", tmp_path / "i.gguf")
    assert "--imatrix changes nothing for Q8_0" in done.stderr


def test_a_rule_needs_a_format_that_is_there(registry: Registry) -> None:
    with pytest.raises(SisError, match="no installed plugin brings the format"):
        parse_rule(registry, "output.weight=nothing")


def test_a_bar_on_a_terminal_only(random_model: Path, tmp_path: Path, slow: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    args = [*SIS, "--plugin", str(slow), "quantize", str(random_model), str(tmp_path / "o.gguf"), "--to", "slow8"]
    args += ["-t", "1"]  # a bar appears when work takes a moment, which two threads might not need
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    assert done.returncode == 0
    assert "blk." in drawn.decode()
    assert b"\x1b" not in done.stdout
