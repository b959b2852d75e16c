"""What `sis quantize` refuses, before and after it has written, and what it warns of."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from workbench import inside, quantise, refused, sis, types

from sis_core.errors import FormatError, SisError, SourceError
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.registry import Registry
from sis_core.workbench.quantizer import parse_rule


@pytest.fixture
def registry() -> Registry:
    return Registry.load()


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
    first, second = quantise(random_model, tmp_path / "a.gguf", "q8_0", registry), tmp_path / "b.gguf"
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
        quantise(random_model, tmp_path / "out.gguf", "q8_0", registry)
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
        quantise(random_model, tmp_path / "out.gguf", "wrong", Registry.of(Plugin()))
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


def unfaithful(fault: str, kind: type[Unfaithful] | None = None) -> Registry:
    format = (kind or Unfaithful)()
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
    quantise(random_model, tmp_path / "out.gguf", "unfaithful", unfaithful(fault))
    assert (tmp_path / "out.gguf").exists()
    says = (
        "UNFAITHFUL keeps normal values within 0.86 of their size, where 8.5 bits should within 0.011: check it with "
    )
    assert [r.getMessage() for r in caplog.records] == [says + "sis_core.testing.check_quant_format"] * bool(fault)


class Declared(Unfaithful):
    """The same with a layout, by which it is known what plain rounding loses."""

    name = "DECLARED"
    layout = Layout(8, 32, Scale("f16", 0), zero=128, codes=Bits(2, 8))

    def dequantize_blocks(self, blocks: Any) -> Any:
        return QuantFormat.dequantize(self, blocks, 32)

    def quantize_blocks(self, values: Any) -> Any:
        scales = (abs(values).max(axis=1, keepdims=True) / np.float32(63 if self.fault == "bit" else 127)).astype("<f2")
        steps = values / np.maximum(scales.astype(np.float32), 1e-8) * np.float32(0.95 if self.fault == "size" else 1)
        whole = np.trunc(steps) if self.fault == "cuts" else np.rint(steps)
        if self.fault == "not finite":
            scales = np.full_like(scales, np.nan)
        return np.hstack([scales.view(np.uint8), (whole.clip(-127, 127) + 128).astype(np.uint8)])


@pytest.mark.parametrize("fault", ["", "cuts", "bit", "size"])
def test_what_keeps_values_worse_than_rounding_would_is_a_warning(
    fault: str, random_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantise(random_model, tmp_path / "out.gguf", "declared", unfaithful(fault, Declared))
    says = (
        r"DECLARED keeps normal values within 0\.0\d+ of their size, where rounding to the numbers that its codes "
        r"stand for keeps them within 0\.005\d: check it with sis_core\.testing\.check_quant_format"
    )
    told = [record.getMessage() for record in caplog.records]
    assert [re.fullmatch(says, line) is not None for line in told] == [True] * bool(fault)


@pytest.mark.parametrize("fault", ["random", "nothing", "order", "not finite"])
def test_what_was_written_is_read_back(fault: str, random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    says = r"token_embd\.weight: .* back are off by \S+ of their size, and UNFAITHFUL does not keep normal values"
    with pytest.raises(FormatError, match=says):
        quantise(random_model, out, "unfaithful", unfaithful(fault))
    assert list(tmp_path.iterdir()) == []


def test_scales_that_are_no_numbers_by_the_layout_are_named(random_model: Path, tmp_path: Path) -> None:
    says = r"token_embd\.weight: .* does not keep normal values either; by its layout scales\[0, 0\] is nan, of these"
    with pytest.raises(FormatError, match=says):
        quantise(random_model, tmp_path / "out.gguf", "declared", unfaithful("not finite", Declared))
    assert list(tmp_path.iterdir()) == []


def test_a_rule_needs_a_format_that_is_there(registry: Registry) -> None:
    with pytest.raises(SisError, match="no installed plugin brings the format"):
        parse_rule(registry, "output.weight=nothing")
