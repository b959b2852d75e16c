"""From a file to packed weights: every byte of the tiles, what stays mapped, and what happens on the way."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import sis_llama
from tiny_models import metadata, tensors, write_model
from workbench import sis

from sis_core import hookimpl
from sis_core.backend import BackendOptions
from sis_core.backends.native import abi, packing
from sis_core.backends.native.library import address
from sis_core.backends.native.memory import aligned
from sis_core.backends.native.weights import Store
from sis_core.backends.numpy import NumpyBackend
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.quant import BlockFormat, F16Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Batch
from sis_core.testing.kernels.weights import taken

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

REASON = X86Backend().idle_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the x86 backend is idle: {REASON}")
REGISTRY = Registry.load() if REASON is None else Registry.of()
FORMATS = list(abi.FORMATS)
U8 = np.ndarray[Any, np.dtype[np.uint8]]


# The layouts of native/kinds.h, one block after another. `rows` are sixteen rows of one block each.


def nibbles(values: U8) -> U8:
    """``(16, 32)`` values of four bits: four vectors, of which byte ``y`` holds ``8 i + y`` and ``8 i + 4 + y``."""
    quads = values.reshape(16, 4, 2, 4)
    return (quads[:, :, 0] | quads[:, :, 1] << 4).transpose(1, 0, 2).reshape(-1)


def tile_q8_0(rows: U8) -> tuple[U8, U8]:
    return rows[:, :2].reshape(-1), rows[:, 2:].reshape(16, 8, 4).transpose(1, 0, 2).reshape(-1)


def tile_q4_0(rows: U8) -> tuple[U8, U8]:
    return rows[:, :2].reshape(-1), nibbles(np.concatenate([rows[:, 2:] & 15, rows[:, 2:] >> 4], 1))


def tile_q4_k(rows: U8) -> U8:
    parts, s = [rows[:, :2].reshape(-1), rows[:, 2:4].reshape(-1)], rows[:, 4:16]
    for i in range(4):
        parts += [s[:, i] & 63, s[:, i + 4] & 63]
    for i in range(4):
        parts += [s[:, i + 8] & 15 | s[:, i] >> 6 << 4, s[:, i + 8] >> 4 | s[:, i + 4] >> 6 << 4]
    for i in range(8):
        parts.append(nibbles(rows[:, 16 + i // 2 * 32 :][:, :32] >> i % 2 * 4 & 15))
    return np.concatenate(parts)


def tile_q6_k(rows: U8) -> U8:
    parts = [rows[:, 208:].reshape(-1), np.zeros(32, np.uint8), rows[:, 192:208].T.reshape(-1)]
    for i in range(8):
        low, high = rows[:, i // 4 * 64 + i % 2 * 32 :][:, :32], rows[:, 128 + i // 4 * 32 :][:, :32]
        parts.append(nibbles(low >> i % 4 // 2 * 4 & 15))
        bits = (high >> i % 4 * 2 & 3).reshape(16, 2, 4, 4)
        joined = bits[:, :, 0] | bits[:, :, 1] << 2 | bits[:, :, 2] << 4 | bits[:, :, 3] << 6
        parts.append(joined.transpose(1, 0, 2).reshape(-1))
    return np.concatenate(parts)


def slow_tiles(name: str, rows: U8, n_cols: int) -> U8:
    """The tiles of a matrix, as the layouts say."""
    format = REGISTRY.get("quant_formats", name)
    padded = np.zeros((-(-len(rows) // 16) * 16, rows.shape[1]), np.uint8)
    padded[: len(rows)] = rows
    made = []
    for tile in padded.reshape(-1, 16, n_cols // format.block_size, format.type_size):
        blocks = [tile[:, b] for b in range(tile.shape[1])]
        if name in ("Q8_0", "Q4_0"):
            halves = list(map(tile_q8_0 if name == "Q8_0" else tile_q4_0, blocks))
            none = (np.zeros_like(halves[0][0]), halves[0][1][:0])  # scales have their place, codes end
            halves += [none] * (len(halves) % 2)
            pairs = zip(halves[::2], halves[1::2], strict=True)
            made.append(np.concatenate([part for a, b in pairs for part in (a[0], b[0], a[1], b[1])]))
        elif name in ("Q4_K", "Q6_K"):
            made.append(np.concatenate(list(map(tile_q4_k if name == "Q4_K" else tile_q6_k, blocks))))
        else:
            flat = tile.transpose(1, 0, 2).reshape(-1)
            made.append(np.pad(flat, (0, -len(flat) % 64)))
    return np.concatenate(made)


def fast_tiles(name: str, rows: U8, n_cols: int, n_threads: int = 2) -> U8:
    library = X86Backend().library()
    source = abi.Weight(abi.FORMATS[name], 0, len(rows), n_cols)
    source.raw, source.row_bytes = address(rows), rows.strides[0]
    tiles = aligned(library.tile_bytes(abi.FORMATS[name], len(rows), n_cols))
    tiles[:] = 0
    library.pack(ctypes.addressof(source), address(tiles), n_threads)
    return tiles


def widths(name: str) -> tuple[int, ...]:
    return {1: (1, 7, 8, 13, 64), 32: (32, 96, 128), 64: (64, 192), 256: (256, 768)}[
        REGISTRY.get("quant_formats", name).block_size
    ]


@pytest.mark.parametrize("name", FORMATS[:7])  # what others hold is tested by test_tiles.py
def test_every_byte_of_the_tiles(name: str) -> None:
    random, format = np.random.default_rng(1), REGISTRY.get("quant_formats", name)
    for n_cols in widths(name):
        for n_rows in (16, 1, 37):
            whole = random.integers(0, 256, (n_rows, format.row_bytes(n_cols) + 3), np.uint8)
            rows = whole[:, 1:-2]  # strided and unaligned, as slices of columns are
            found, wanted = fast_tiles(name, rows, n_cols), slow_tiles(name, rows, n_cols)
            assert np.array_equal(found, wanted), f"{name}, {n_rows} rows of {n_cols}"


@pytest.mark.parametrize("name", FORMATS)
def test_rows_from_tiles_are_those_of_the_raw_bytes(name: str) -> None:
    random, format = np.random.default_rng(2), REGISTRY.get("quant_formats", name)
    n_cols = widths(name)[-1]
    data = random.integers(0, 256, (37, format.row_bytes(n_cols)), np.uint8)
    weight, library = Weight.of("w", format, (37, n_cols), lambda: data.reshape(-1)), X86Backend().library()
    tiles = fast_tiles(name, data, n_cols)
    bound = abi.Weight(abi.FORMATS[name], 0, 37, n_cols)
    bound.tiles = address(tiles)
    rows = np.array([36, 0, 15, 16, 15], np.int32)
    found, wanted = taken(library, weight, rows, ctypes.addressof(bound)), taken(library, weight, rows)
    same = (found.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(found) & np.isnan(wanted))
    assert same.all(), "not the same bits"


@pytest.mark.full
def test_more_values_than_an_int_can_count() -> None:
    """A matrix of 2^31 values in 2^32 bytes, of which only the last rows are touched: those are found, in all ways."""
    n_rows, n_cols, n_last = (1 << 21) + 5, 1024, 21
    data = np.zeros((n_rows, n_cols * 2), np.uint8)  # pages of nothing but zeros, which take no memory
    values = np.random.default_rng(5).standard_normal((n_last, n_cols)).astype(np.float16)
    data[-n_last:] = values.view(np.uint8)
    weight = Weight.of("w", F16Format(), (n_rows, n_cols), lambda: data.reshape(-1))
    x = np.random.default_rng(6).standard_normal((40, n_cols)).astype(np.float32)
    linear = X86Backend().linear(weight, BackendOptions(n_threads=2, pack=False))
    assert linear is not None
    for n in (1, 3, 40):  # rows by which kernels and units are chosen
        found = linear(x[:n])
        assert not found[:, :-n_last].any()
        np.testing.assert_allclose(found[:, -n_last:], x[:n] @ values.T.astype(np.float32), rtol=5e-3, atol=0.1)
    last = taken(X86Backend().library(), weight, np.array([n_rows - 1, 0], np.int32))
    assert np.array_equal(last, np.stack([values[-1].astype(np.float32), np.zeros(n_cols, np.float32)]))


def tied(tmp_path: Path) -> Path:
    values = {name: array for name, array in tensors().items() if name != "output.weight"}
    return write_model(tmp_path / "tied.gguf", weights=values)


def logits(model: Model) -> np.ndarray[Any, np.dtype[np.float32]]:
    return model.step(Batch.of([1, 2, 259], outputs=range(3)), model.new_cache(32)).values


def is_mapped(path: Path) -> bool:
    return any(found.path == str(path) for found in psutil.Process().memory_maps())


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="this system does not list mappings")
@pytest.mark.parametrize("tie", [False, True], ids=["head of its own", "head is the embedding"])
def test_a_packed_model_outlives_its_file(tie: bool, tmp_path: Path) -> None:
    """A step on a mapped file that has shrunk would end the process; with everything packed nothing is mapped."""
    path = tied(tmp_path) if tie else write_model(tmp_path / "m.gguf")
    with open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(pack=True)) as model:
        wanted = logits(model)
        assert not is_mapped(path)
        os.truncate(path, 100)
        assert np.array_equal(logits(model), wanted)


def test_in_place_the_file_stays_mapped(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    with open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(pack=False)) as model:
        in_place = logits(model)
        assert is_mapped(path)
        assert model.fit.plan.packed == 0
    with open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(pack=True)) as model:
        assert np.array_equal(logits(model), in_place)
        assert model.fit.plan.packed > model.fit.plan.weights


def test_packing_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tiles, however they are cut; progress grows to the end, and pages are given back after each piece."""
    data = np.random.default_rng(3).integers(0, 256, (100, 64), np.uint8)
    format = REGISTRY.get("quant_formats", "F32")
    seen: list[tuple[int, int]] = []
    released: list[int] = []
    weight = Weight(
        "w", format, (100, 16), lambda: data.reshape(-1), (100, 16), release=lambda: released.append(len(seen))
    )
    monkeypatch.setattr(packing, "PIECE_BYTES", 40 * 64)
    store = Store(X86Backend().library(), 2, pack=True)
    store.bind([weight], lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [32 * 64, 64 * 64, 96 * 64, 112 * 64]
    assert {total for _, total in seen} == {112 * 64}
    assert released == [0, 1, 2, 3]
    found = np.ctypeslib.as_array((ctypes.c_uint8 * (112 * 64)).from_address(store[weight].tiles))
    assert np.array_equal(found, slow_tiles("F32", data, 16))


def test_the_embedding_is_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(4).integers(0, 256, (100, 34), np.uint8)
    released: list[int] = []
    weight = Weight(
        "w", REGISTRY.get("quant_formats", "Q8_0"), (100, 32), lambda: data.reshape(-1), (100, 32),
        release=lambda: released.append(1),
    )  # fmt: skip
    monkeypatch.setattr(packing, "HUGE", 40 * 34)
    rows, library = np.arange(100, dtype=np.int32), X86Backend().library()
    wanted = taken(library, weight, rows)
    assert not released
    store = Store(library, 1, pack=True)
    table = store.table(weight)
    assert len(released) == 3
    data[:] = 0
    assert np.array_equal(taken(library, weight, rows, table).view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("tie", [False, True], ids=["head of its own", "head is the embedding"])
def test_pieces_are_unmapped(tie: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system cannot be told to drop pages of a mapping, the mapping goes after each piece."""
    monkeypatch.delattr("mmap.MADV_DONTNEED")
    path = tied(tmp_path) if tie else write_model(tmp_path / "m.gguf")
    mapped: list[bool] = []
    options = BackendOptions(pack=True, progress=lambda done, total: mapped.append(is_mapped(path)))
    with open_model(Model, path, REGISTRY, backend="x86", options=options) as model:
        assert len(mapped) > 10
        assert not any(mapped)
        assert not is_mapped(path)
        logits(model)


def test_packing_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C is heard between two pieces; nothing of the model is left."""
    path = write_model(tmp_path / "m.gguf")

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(pack=True, progress=interrupt))
    assert not is_mapped(path)
    assert not any(found.path == str(path) for found in psutil.Process().open_files())


class Halves(BlockFormat):
    """A format that only Python knows: half precision under another name."""

    name, block_size, type_size = "HALVES", 1, 2

    def dequantize_blocks(self, blocks: U8) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


class Plugin:
    @hookimpl
    def sis_register_quant_formats(self) -> list[Halves]:
        return [Halves()]


def strange_model(path: Path) -> Path:
    """A model whose feed-forward down matrices, of 64 columns, are in a format of Python alone."""
    writer = GGUFWriter(path, metadata(llama__context_length=64))
    for name, array in tensors().items():
        if "ffn_down" in name:
            writer.add_tensor(name, array.shape, "HALVES", [array.astype("<f2").view(np.uint8)],
                              n_bytes=array.size * 2, package="sis-halves")  # fmt: skip
        else:
            writer.add_tensor(name, array.shape, "F32", [array])
    writer.write()
    return path


def test_what_does_not_fit_decoded_is_decoded_in_each_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = strange_model(tmp_path / "m.gguf")
    registry = Registry.of(sis_llama, Plugin(), sis_x86)
    with open_model(Model, path, registry, backend="numpy") as model:
        wanted = logits(model)
    with open_model(Model, path, registry, backend="x86") as model:
        assert set(model.grains) == {"x86 forward"}
        most = model.fit.plan
        np.testing.assert_allclose(logits(model), wanted, rtol=2e-3, atol=2e-3)

    options = BackendOptions(decode=False)
    with open_model(Model, path, registry, backend="x86", options=options) as model:
        assert set(model.grains) == {"numpy layer + x86 linear"}
        least = model.fit.plan
        assert least.packed < most.packed
        assert least.weights > most.weights

    # A limit under which only the second way fits, whether or not the rest is packed.
    limit = most.anonymous - most.packed + 2 * 2 * 32 * 64 - 1
    with (
        caplog.at_level(logging.WARNING),
        open_model(Model, path, registry, backend="x86", memory_limit=limit) as model,
    ):
        assert set(model.grains) == {"numpy layer + x86 linear"}
        np.testing.assert_allclose(logits(model), wanted, rtol=2e-3, atol=2e-3)
        assert model.options.decode is False
    assert "weights that only Python decodes are decoded in every step, which is slow" in caplog.text


def test_what_the_program_says(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    shown = sis("doctor", "-m", path).stdout
    assert re.search(
        r"x86\t100\tready\t\w+.*, \d+ threads? \(\d+ usable cores?.*huge pages: \w+, memory read at [\d.]+ GB/s", shown
    )
    assert re.search(r"memory: in place \d+ \+ packed \d+ \+ .* = \d+ MiB, of [\d,]+ MiB that were free", shown)
    assert "weights are packed while the first tokens come: " in shown
    done = sis("-v", "generate", "-m", path, "--no-pack", "--pin", "-t", 2, "-n", 1, "h")
    assert done.returncode == 0
    assert "weights are read in place: --no-pack says so" in done.stderr


class OfPython(BlockFormat):
    name, block_size, type_size = "OF_PYTHON", 32, 8

    def dequantize_blocks(self, blocks: Any) -> Any:
        raise NotImplementedError


class OfC(OfPython):
    name = "OF_C"
    decoder = 1  # type: ignore[assignment] # an address that nobody calls


def test_how_a_weight_runs_is_said_before_it_is_bound() -> None:
    def said(format: QuantFormat, **options: Any) -> tuple[str, int] | None:
        weight = Weight.of("w", format, (16, 256), lambda: np.zeros(0, np.uint8))
        found = X86Backend().handling(weight, BackendOptions(n_threads=1, **options))
        return (found.way, found.nbytes) if found else None

    q8_0, q4_1 = (REGISTRY.get("quant_formats", name) for name in ("Q8_0", "Q4_1"))
    assert said(q8_0) == ("packed into tiles", 16 * 8 * 34)
    assert said(q8_0, pack=False) == ("read in place, as tiles in each step", 16 * 8 * 34)
    assert said(q4_1) == ("packed into tiles", 16 * 8 * 20)
    assert said(OfC()) == ("decoded in each step", 16 * 8 * 8)
    why = "it has neither a layout nor a decoder in C"
    assert said(OfPython()) == (f"decoded at load to 16 bits: {why}", 16 * 256 * 2)
    assert said(OfPython(), decode=False) is None
    assert NumpyBackend().handling(Weight.of("w", q4_1, (16, 64), lambda: np.zeros(0, np.uint8)), BackendOptions())
