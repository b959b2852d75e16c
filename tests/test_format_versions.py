"""Versions of a format that GGUF has no id for: older files are read, newer ones refused, and no file has two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import metadata, tensors, write_model

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.layout import Bits, Layout, Scale
from sis_core.loading.weights import file_weights
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.registry import Registry
from sis_core.testing import check_quant_format
from sis_core.workbench.quantizer import make_plan, parse_rule, quantize_file

KEY = "sis.format.BYTES.version"


class First(BlockFormat):
    """Blocks of 32 whole numbers, and then their scale."""

    name, block_size, type_size = "BYTES", 32, 34
    layout = Layout(8, 32, Scale("f16", 32), zero=128, codes=Bits(0, 8))

    def quantize_blocks(self, values: F32) -> U8:
        scales = (np.abs(values).max(axis=1, keepdims=True) / 127).astype("<f2")
        codes = np.rint(values / np.maximum(scales.astype(np.float32), 1e-8)) + 128
        return self.join(scales.view(np.uint8), np.clip(codes, 0, 255).astype(np.uint8))

    def join(self, scales: U8, codes: U8) -> U8:
        return np.hstack([codes, scales])


class Second(First):
    """The scale comes first."""

    version = 2
    layout = Layout(8, 32, Scale("f16", 0), zero=128, codes=Bits(2, 8))

    def join(self, scales: U8, codes: U8) -> U8:
        return np.hstack([scales, codes])

    def of_version(self, version: int) -> QuantFormat:
        return First() if version == 1 else super().of_version(version)


class Plugin:
    def __init__(self, *formats: QuantFormat) -> None:
        self.formats = formats

    @hookimpl
    def sis_register_quant_formats(self) -> list[QuantFormat]:
        return list(self.formats)


OLD, NEW = Registry.of(Plugin(First())), Registry.of(Plugin(Second()))


def make(path: Path, registry: Registry, source: Path | None = None, **options: Any) -> Path:
    source = source or write_model(path.with_name("f32.gguf"))
    with GGUFFile.open(source) as file:
        quantize_file(file, path, make_plan(file, registry, "bytes", pure=True, **options), n_threads=1)
    return path


def matrix(path: Path, registry: Registry) -> F32:
    with GGUFFile.open(path) as file:
        return file_weights(file, registry)["blk.0.ffn_up.weight"].dequantize()


def with_version(path: Path, version: object) -> Path:
    """A copy of a file that says something else."""
    target = path.with_name("changed.gguf")
    with GGUFFile.open(path) as file:
        writer = GGUFWriter(target, dict(file.metadata) | {KEY: version})
        for info in file.tensors.values():
            raw = file.raw(info.name)
            writer.add_tensor(info.name, info.shape, info.type_name, [raw], n_bytes=len(raw))
        writer.write()
    return target


def test_formats_of_two_versions_keep_the_contract() -> None:
    check_quant_format(First())
    check_quant_format(Second())


def test_files_of_both_versions_are_read(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1.gguf", OLD), make(tmp_path / "2.gguf", NEW)
    for path, version in ((first, 1), (second, 2)):
        with GGUFFile.open(path) as file:
            assert file.metadata[KEY] == version
    wanted = tensors()["blk.0.ffn_up.weight"]
    for path in (first, second):
        np.testing.assert_allclose(matrix(path, NEW), wanted, atol=0.01)
    assert np.array_equal(matrix(first, OLD), matrix(first, NEW))


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "2.gguf", NEW)
    with pytest.raises(FormatError, match="version 2 of the format BYTES is not known") as refused:
        matrix(path, OLD)
    assert "2.gguf: tensor" in str(refused.value)
    assert "Install a newer version" in str(refused.value)


@pytest.mark.parametrize("version", [0, -1, True, "2"])
def test_what_is_no_version_is_refused(tmp_path: Path, version: object) -> None:
    path = with_version(make(tmp_path / "1.gguf", OLD), version)
    with pytest.raises(FormatError, match="no version of a format"):
        matrix(path, OLD)


def test_a_file_without_the_key_is_in_version_1(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    values = tensors()["blk.0.ffn_up.weight"]
    writer = GGUFWriter(path, metadata())
    rows = First().quantize(values)
    writer.add_tensor("blk.0.ffn_up.weight", values.shape, "BYTES", [rows], n_bytes=rows.nbytes)
    writer.write()
    np.testing.assert_allclose(matrix(path, NEW), values, atol=0.01)


def test_copied_tensors_keep_their_version_and_do_not_mix(tmp_path: Path) -> None:
    first = make(tmp_path / "1.gguf", OLD, rules=[parse_rule(OLD, "*attn_q*=f32")])
    with pytest.raises(FormatError, match="version 1 and 2 of the format BYTES"):
        make(tmp_path / "both.gguf", NEW, first)
    kept = make(tmp_path / "kept.gguf", NEW, first, rules=[parse_rule(NEW, "*attn_q*=keep")])
    with GGUFFile.open(kept) as file:
        assert file.metadata[KEY] == 1
    plain = tmp_path / "plain.gguf"
    with GGUFFile.open(first) as file:
        quantize_file(file, plain, make_plan(file, NEW, "f16", pure=True, requantize=True), n_threads=1)
    with GGUFFile.open(plain) as file:
        assert KEY not in file.metadata


def test_a_stranger_that_accepts_everything_is_found_out() -> None:
    class Careless(First):
        def of_version(self, version: int) -> QuantFormat:
            return self

    with pytest.raises(AssertionError, match="accepts 2, which is newer"):
        check_quant_format(Careless())
