"""`sis quantize` writes the sides that a format makes, and divides by them what they multiply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from sis_core import Registry
from sis_core.arrays import F32, U8
from sis_core.cli.main import main
from sis_core.discovery.plugin import Plugin
from sis_core.errors import FormatError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.hookspecs import hookimpl
from sis_core.loading.weights import file_weights
from sis_core.quant import BlockFormat, F16Format, Weight
from sis_core.sides import SideName
from sis_core.workbench.quantizer import Importance, make_plan, quantize_file

SIZES: F32 = np.tile(np.array([1, 4], np.float32), 16)


class Sided(BlockFormat):
    """Half precision, with what columns and the whole are divided by."""

    name, block_size, type_size = "SIDED", 1, 2
    seen: F32 | None = None

    def side_names(self, tensor: str) -> Mapping[str, SideName]:
        stem = tensor.removesuffix(".weight")
        return {"columns": SideName(f"{stem}.columns", "column"), "all": SideName(f"{stem}.all", "tensor")}

    def make_sides(self, weight: Weight, importance: F32 | None) -> Mapping[str, F32]:
        if importance is None:
            return {}
        return {"columns": np.sqrt(importance[0]), "all": np.array([0.5], np.float32)}

    def dequantize_blocks(self, blocks: U8) -> F32:
        return F16Format().dequantize_blocks(blocks)

    def quantize_blocks(self, values: F32) -> U8:
        return F16Format().quantize_blocks(values)

    def quantize_weighted(self, values: F32, importance: F32) -> U8:
        type(self).seen = importance
        return self.quantize(values)


def registry(format: BlockFormat) -> Registry:
    class Brought:
        @hookimpl
        def sis_register_quant_formats(self) -> list[BlockFormat]:
            return [format]

    return Registry([*Registry.load().plugins, Plugin("brought", cast("Any", Brought()))])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    writer = GGUFWriter(tmp_path / "in.gguf", {"general.architecture": "llama"})
    values = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_up.weight", (16, 32), "F32", [values])
    writer.write()
    return tmp_path / "in.gguf"


IMPORTANCE = Importance({"blk.0.ffn_up.weight": 10.0 * SIZES[None] ** 2}, {"blk.0.ffn_up.weight": np.array([10.0])})


def test_sides_are_written_and_what_is_read_is_the_tensor(source: Path, tmp_path: Path) -> None:
    made, known = Sided(), registry(Sided())
    with GGUFFile.open(source) as file:
        wanted = file_weights(file, known)["blk.0.ffn_up.weight"].dequantize().copy()
        plan = make_plan(file, known, "SIDED")
        quantize_file(file, tmp_path / "out.gguf", plan, importance=IMPORTANCE, n_threads=1)
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        assert set(file.tensors) == {"blk.0.ffn_up.weight", "blk.0.ffn_up.columns", "blk.0.ffn_up.all"}
        weights = file_weights(file, known)
        assert weights["blk.0.ffn_up.columns"].dequantize().tolist() == SIZES.tolist()
        found = weights["blk.0.ffn_up.weight"]
        np.testing.assert_allclose(found.dequantize(), wanted, rtol=1e-3)
        stored = made.dequantize(found.raw, 32)
        np.testing.assert_allclose(stored, wanted / SIZES / 0.5, rtol=1e-3)
        del found, weights
    assert Sided.seen is not None
    np.testing.assert_allclose(Sided.seen, SIZES**4)  # an error of what is stored counts as many times more


KEY = "sis.format.SIDED.sides"


def changed(path: Path, without: str, metadata: Mapping[str, Any]) -> Path:
    """A copy of a file that has one tensor less, and other metadata."""
    target = path.with_name("changed.gguf")
    with GGUFFile.open(path) as file:
        writer = GGUFWriter(target, dict(file.metadata) | dict(metadata))
        for info in file.tensors.values():
            if info.name != without:
                raw = file.raw(info.name)
                writer.add_tensor(info.name, info.shape, info.type_name, [raw], n_bytes=len(raw))
        writer.write()
    return target


@pytest.fixture
def sided(source: Path, tmp_path: Path) -> Path:
    with GGUFFile.open(source) as file:
        plan = make_plan(file, registry(Sided()), "SIDED")
        quantize_file(file, tmp_path / "sided.gguf", plan, importance=IMPORTANCE, n_threads=1)
    return tmp_path / "sided.gguf"


@pytest.mark.parametrize("lost", ["blk.0.ffn_up.columns", "blk.0.ffn_up.all"])
def test_a_side_that_was_lost_is_missed(sided: Path, lost: str) -> None:
    with (
        GGUFFile.open(changed(sided, lost, {})) as file,
        pytest.raises(FormatError, match=f"tensor blk.0.ffn_up.weight: needs its side {lost}"),
    ):
        file_weights(file, registry(Sided()))


def test_a_file_that_says_nothing_of_sides_is_read(sided: Path) -> None:
    """As older files are: without a side, its numbers are taken to be folded into what comes before."""
    with GGUFFile.open(sided) as file:
        writer = GGUFWriter(sided.with_name("old.gguf"), {"general.architecture": "llama"})
        raw = file.raw("blk.0.ffn_up.weight")
        writer.add_tensor("blk.0.ffn_up.weight", (16, 32), "SIDED", [raw], n_bytes=len(raw))
        writer.write()
    with GGUFFile.open(sided.with_name("old.gguf")) as file:
        assert file_weights(file, registry(Sided()))["blk.0.ffn_up.weight"].side == {}


@pytest.mark.parametrize("said", [1, "blk.0.ffn_up.all", np.array([1, 2], np.int32), [b"\xff"]])
def test_what_is_no_list_of_sides_is_refused_when_one_is_missing(sided: Path, said: Any) -> None:
    with (
        GGUFFile.open(changed(sided, "blk.0.ffn_up.all", {KEY: said})) as file,
        pytest.raises(FormatError, match=r"sis\.format\.SIDED\.sides is .* no list of tensors"),
    ):
        file_weights(file, registry(Sided()))


def test_copies_keep_what_is_said_of_sides_and_others_do_not(sided: Path, tmp_path: Path) -> None:
    known = registry(Sided())
    for name, format, wanted in (("kept", "SIDED", True), ("other", "F16", False)):
        with GGUFFile.open(sided) as file:
            plan = make_plan(file, known, format, pure=True, requantize=True)
            quantize_file(file, tmp_path / f"{name}.gguf", plan, n_threads=1)
        with GGUFFile.open(tmp_path / f"{name}.gguf") as file:
            assert (KEY in file.metadata) is wanted
            if wanted:
                assert list(file.metadata[KEY]) == [b"blk.0.ffn_up.all", b"blk.0.ffn_up.columns"]  # type: ignore[arg-type]


def test_without_importance_it_makes_none(source: Path, tmp_path: Path) -> None:
    known = registry(Sided())
    with GGUFFile.open(source) as file:
        quantize_file(file, tmp_path / "out.gguf", make_plan(file, known, "SIDED"), n_threads=1)
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        assert list(file.tensors) == ["blk.0.ffn_up.weight"]


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ({"rows": SIZES}, "gives 'rows', which side_names has not"),
        ({"columns": SIZES[1:]}, r"gives 'columns' as float32 \(31,\), not float32 \(32,\)"),
        ({"columns": SIZES.astype(np.float64)}, "as float64"),
        ({"columns": 0 * SIZES}, "numbers that nothing can be divided by"),
        (None, "make_sides of the format SIDED failed: TypeError"),
    ],
)
def test_sides_that_cannot_be_are_refused(source: Path, tmp_path: Path, made: Any, fault: str) -> None:
    known = registry(type("Wrong", (Sided,), {"make_sides": lambda self, weight, importance: made})())
    with GGUFFile.open(source) as file, pytest.raises(FormatError, match=fault):
        quantize_file(file, tmp_path / "out.gguf", make_plan(file, known, "SIDED"), n_threads=1)
    assert not (tmp_path / "out.gguf").exists()


PLUGIN = """
import numpy as np
from sis_core import hookimpl
from sis_core.quant import F16Format
from sis_core.sides import SideName

class Halved(F16Format):
    name, type_id = "HALVED", None
    def side_names(self, tensor):
        return {"all": SideName(tensor + ".all", "tensor")}
    def make_sides(self, weight, importance):
        return {"all": np.array([0.5], np.float32)}

@hookimpl
def sis_register_quant_formats():
    return [Halved()]
"""


def test_a_dry_run_shows_the_sides_that_a_run_writes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, out = tmp_path / "halved.py", tmp_path / "out.gguf"
    plugin.write_text(PLUGIN)
    command = ["quantize", str(source), str(out), "--to", "halved", "--plugin", str(plugin), "--json"]
    found = []
    for more in (["--dry-run"], []):
        with pytest.raises(SystemExit) as stop:
            main([*command, *more])
        assert not stop.value.code
        found.append(json.loads(capsys.readouterr().out))
    planned, written = found
    assert [tensor["name"] for tensor in planned["tensors"]] == ["blk.0.ffn_up.weight", "blk.0.ffn_up.weight.all"]
    assert planned["tensors"] == written["tensors"]
    assert planned["bits_per_weight"] == written["bits_per_weight"]
