"""Packing in the first steps: nothing waits for it, no result tells of it, and in the end all is packed."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from test_native_load import REGISTRY, is_mapped, pytestmark, tied  # noqa: F401 - the mark is this module's too
from tiny_models import metadata, tensors, write_model

from sis_core.backend import BackendOptions, Cache
from sis_core.backends.native import gradual, packing
from sis_core.backends.native.forward import NativeForward
from sis_core.backends.native.memory import HUGE, Arena
from sis_core.errors import GGUFError, MemoryLimitError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.step import Batch, Run

F32 = np.ndarray[Any, np.dtype[np.float32]]


def opened(path: Path, **options: Any) -> Model:
    return open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(**options))


def step(model: Model, cache: Cache, token: int = 5) -> F32:
    return model.step(Batch([token], (Run(0, cache.length(0), 1),), [0]), cache).values


def finish(model: Model, cache: Cache, other: Model | None = None) -> None:
    """Step until all is packed, with the bits of ``other``: a machine at work on something else takes more steps."""
    wanted = other.new_cache(32) if other else None
    cache.truncate(0, 0)
    for _ in range(500):
        if not waits(model):
            return
        found = step(model, cache)
        assert other is None or wanted is None or np.array_equal(found, step(other, wanted))
        for one in (cache, wanted):
            if one is not None and one.length(0) == 16:
                one.truncate(0, 0)
    raise AssertionError("something waits for ever")


def waits(model: Model) -> bool:
    assert isinstance(model.forward, NativeForward)
    return bool(model.forward._store.waiting)


def tiles_wait(model: Model) -> bool:
    assert isinstance(model.forward, NativeForward)
    return any(isinstance(one, packing.Tiles) for one in model.forward._store.waiting._packings)


def tiles(model: Model) -> list[packing.Tiles]:
    assert isinstance(model.forward, NativeForward)
    return [one for one in model.forward._store.waiting._packings if isinstance(one, packing.Tiles)]


def any_made(model: Model) -> bool:
    """Whether steps have kept a tile of a weight that still waits."""
    return any(one._made is not None and one._made.n_made for one in tiles(model))


def with_experts(path: Path, n_ff: int = 64) -> Path:
    """The random LLaMA with eight experts in each layer, of which a row uses two."""
    random, weights = np.random.default_rng(1), tensors()
    for i in range(2):
        for name in ("gate", "up", "down"):
            n_out, n_in = (n_ff if n == 64 else n for n in weights.pop(f"blk.{i}.ffn_{name}.weight").shape)
            weights[f"blk.{i}.ffn_{name}_exps.weight"] = random.standard_normal((8, n_out, n_in)).astype(np.float32)
        weights[f"blk.{i}.ffn_gate_inp.weight"] = random.standard_normal((8, 32)).astype(np.float32)
    values = metadata(llama__expert_count=8, llama__expert_used_count=2, llama__feed_forward_length=n_ff)
    return write_model(path, values, weights)


def wide(path: Path, n_ff: int = 1 << 14) -> Path:
    """The random LLaMA with a wide feed-forward: 12 MiB, so that its tiles take several pieces of memory."""
    random, weights = np.random.default_rng(1), tensors()
    for i in range(2):
        for name in ("gate", "up", "down"):
            shape = tuple(n_ff if n == 64 else n for n in weights[f"blk.{i}.ffn_{name}.weight"].shape)
            weights[f"blk.{i}.ffn_{name}.weight"] = 0.1 * random.standard_normal(shape).astype(np.float32)
    return write_model(path, metadata(llama__feed_forward_length=n_ff), weights)


def memory(model: Model) -> tuple[int, int]:
    """Bytes of memory that were taken for tiles, and of tiles that steps have made."""
    assert isinstance(model.forward, NativeForward)
    store = model.forward._store
    arena = next(one for one in store._owners if isinstance(one, Arena))
    left = [(one, store._tile_bytes(one.weight)) for one in tiles(model)]
    begun = sum(size * one.n_made * 16 // one.weight.n_rows for one, size in left)
    return int(arena.taken.sum()) * HUGE, arena.array.nbytes - sum(size for _, size in left) + begun


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    return sum(found.rss for found in psutil.Process().memory_maps() if found.path == str(path))


@pytest.fixture(params=[False, True], ids=["head of its own", "head is the embedding"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tied(tmp_path) if request.param else write_model(tmp_path / "m.gguf")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step makes time for next to nothing, and pieces are small."""
    monkeypatch.setattr(gradual, "SHARE", 1e-3)
    monkeypatch.setattr(packing, "PIECE_BYTES", 2048)


def save_up(model: Model, nanoseconds: int) -> None:
    """From now on threads may wait for memory so long in all; less than nothing is a debt that nobody forgives."""
    assert isinstance(model.forward, NativeForward)
    waiting = model.forward._store.waiting
    waiting._saved.value, waiting._saved = nanoseconds, ctypes.c_int64()


def test_the_same_bits_on_the_way(path: Path, patient: None) -> None:
    """Packed over many steps, each of them equal to that of a model that was packed at load."""
    with opened(path, pack=True) as packed, opened(path) as model:
        assert not waits(packed)
        assert waits(model)
        wanted, found, steps = packed.new_cache(256), model.new_cache(256), 0
        while waits(model):
            assert np.array_equal(step(model, found), step(packed, wanted))
            steps += 1
            for cache in (wanted, found):
                cache.truncate(0, steps % 100)
        assert steps > 1
        assert np.array_equal(step(model, found), step(packed, wanted))


def test_in_the_end_the_file_is_not_needed(path: Path) -> None:
    with opened(path) as model:
        cache = model.new_cache(32)
        assert model.fit.layout.startswith("weights are packed while the first tokens come")
        step(model, cache)
        assert is_mapped(path)  # the first step did not wait
        finish(model, cache)
        assert not is_mapped(path)
        path.write_bytes(b"")
        step(model, cache)


@pytest.mark.parametrize("rows", [8, 64])
def test_steps_of_several_rows_pack_what_they_read(path: Path, rows: int) -> None:
    """After the first, as they have saved time, with the bits of a model packed at load; then no file is needed."""
    with opened(path, pack=True) as packed, opened(path) as model:
        wanted, found, steps = packed.new_cache(4096), model.new_cache(4096), 0
        while tiles_wait(model):
            batch = Batch([*range(rows)], (Run(steps, 0, rows),), [*range(rows)])
            assert np.array_equal(model.step(batch, found).values, packed.step(batch, wanted).values)
            steps += 1
            assert steps > 1 or not any_made(model)
            assert steps < 100
        finish(model, model.new_cache(32), packed)
        assert not is_mapped(path)


def test_steps_keep_no_tiles_that_memory_makes_too_dear(path: Path) -> None:
    """Without time to wait for memory all is made again in each prompt, to the same bits."""
    with opened(path, pack=True) as packed, opened(path) as model:
        batch = Batch([*range(64)], (Run(0, 0, 64),), [*range(64)])
        save_up(model, -(2**62))
        for _ in range(4):
            wanted, found = packed.new_cache(128), model.new_cache(128)
            assert np.array_equal(model.step(batch, found).values, packed.step(batch, wanted).values)
        assert not any_made(model)
        finish(model, model.new_cache(32), packed)


@pytest.mark.parametrize("experts", [False, True])
def test_part_of_the_tiles_of_a_weight_may_stay(tmp_path: Path, experts: bool) -> None:
    """Time ends in the middle of a step: what was made is used, and the rest made again.

    What memory was taken is filled, since the file's pages are given back for tiles alone.
    """
    path = with_experts(tmp_path / "m.gguf", 4096) if experts else wide(tmp_path / "m.gguf")
    batch = Batch([*range(64)], (Run(0, 0, 64),), [*range(64)])
    parts = 0
    with opened(path, pack=True) as packed:
        wanted = packed.step(batch, packed.new_cache(128)).values
        for _ in range(50):  # a thread that something else held up has saved time enough for all at once
            with opened(path, n_threads=1) as model:  # two would both look, and both go on
                assert isinstance(model.forward, NativeForward)
                for _ in range(200):
                    model.forward._store.waiting._saved.value = 1
                    assert np.array_equal(model.step(batch, model.new_cache(128)).values, wanted)
                    if not tiles_wait(model):
                        break
                    parts += any_made(model)
                    taken, made = memory(model)
                    assert made >= taken / 4  # tiles of ffn_down reach over two pieces
                assert not tiles_wait(model)
            if parts:
                break
    assert parts


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not map pages ahead")
def test_a_file_is_mapped_before_the_first_step(path: Path) -> None:
    with opened(path) as model:
        assert isinstance(model.forward, NativeForward)
        ahead = model.forward._store.ahead
        assert ahead._thread is not None
        ahead._jobs.put(None)
        ahead._thread.join()  # all that it was told of is there
        assert resident(path) >= sum(one.weight.nbytes for one in tiles(model)) // 2
        step(model, model.new_cache(32))
        assert ahead._thread is None
    assert not is_mapped(path)


def test_closed_before_the_first_step(path: Path) -> None:
    with opened(path):
        pass
    assert not is_mapped(path)


def test_experts_are_packed_as_they_are_used(tmp_path: Path) -> None:
    """A step makes the tiles of its experts, and the next uses them; the rest is packed once steps make none."""
    path = with_experts(tmp_path / "m.gguf")
    with opened(path, pack=True) as packed, opened(path) as model:
        wanted, found = packed.new_cache(512), model.new_cache(512)
        save_up(model, 2**62)
        for at in range(0, 64, 8):
            batch = Batch.of(range(at, at + 8), position=at, outputs=range(8))
            assert np.array_equal(model.step(batch, found).values, packed.step(batch, wanted).values)
        finish(model, model.new_cache(32), packed)
        assert not is_mapped(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count a mapping's pages in other ways")
def test_experts_that_are_packed_are_given_back(tmp_path: Path) -> None:
    """Though no row chooses the others: all rows are of one token, so they choose the same two."""
    path, n_ff = with_experts(tmp_path / "m.gguf", 4096), 4096
    chosen = 2 * 2 * 2 * n_ff * 32 * 4  # two layers' gates and ups of two experts; downs have few tiles
    for saved in (-(2**62), 2**62):
        with opened(path) as model:
            save_up(model, saved)
            sizes = []
            for _ in range(2):  # the first step keeps nothing; how much was mapped by then is a matter of luck
                model.step(Batch.of([5] * 16), model.new_cache(32))
                sizes.append(resident(path))
            assert tiles_wait(model)
        assert sizes[0] > chosen
        assert (sizes[0] - sizes[1] > chosen * 3 // 4) is (saved > 0)


def test_no_weight_is_in_memory_twice_during_a_step(path: Path, patient: None) -> None:
    """What has been packed is given back, and no step reads it again: a weight is packed whole or not at all."""
    with opened(path) as model:
        cache = model.new_cache(256)
        assert isinstance(model.forward, NativeForward)
        while waiting := model.forward._store.waiting:
            assert not any(packing._row for packing in waiting._packings)
            step(model, cache)
            cache.truncate(0, 1)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("n_rows", [1, 128])
def test_a_file_that_shrinks_meanwhile_is_an_error(path: Path, patient: None, n_rows: int, before: int) -> None:
    with opened(path) as model:
        cache = model.new_cache(512)
        for _ in range(before):
            step(model, cache)
        os.truncate(path, 100)
        for _ in range(2):
            with pytest.raises(GGUFError, match="shrank or grew"):
                model.step(Batch.of(range(n_rows), position=before), cache)
        assert tiles_wait(model)


def test_interrupted_between_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves the cache as it was; the piece, here of experts that no row chooses, is done again."""
    path = with_experts(tmp_path / "m.gguf")
    with opened(path, pack=True) as packed:
        cache = packed.new_cache(32)
        wanted = [step(packed, cache) for _ in range(3)]
    advance, calls = packing.Packing.advance, iter(range(1000))

    def interrupted(self: packing.Packing) -> int:
        size = advance(self)
        if next(calls) % 2 == 0:
            raise KeyboardInterrupt
        return size

    monkeypatch.setattr(packing, "PIECE_BYTES", 2048)
    monkeypatch.setattr(packing.Packing, "advance", interrupted)
    with opened(path) as model:
        cache = model.new_cache(32)
        assert np.array_equal(step(model, cache), wanted[0])
        interrupts = 0
        while waits(model) and interrupts < 1000:
            length = cache.length(0)
            try:
                step(model, cache)
                cache.truncate(0, 1)
            except KeyboardInterrupt:
                interrupts += 1
                assert cache.length(0) == length
        assert interrupts > 2
        assert not waits(model)
        assert np.array_equal(step(model, cache), wanted[1])
        assert not is_mapped(path)


def test_two_threads_meanwhile(path: Path, patient: None) -> None:
    """While one thread packs, others step on: in place, then packed."""
    with opened(path, pack=True) as packed:
        cache = packed.new_cache(64)
        wanted = [step(packed, cache, token) for token in range(60)]
    with opened(path) as model:
        wrong: list[int] = []

        def run() -> None:
            cache = model.new_cache(64)
            for _ in range(5):
                wrong.extend(t for t in range(60) if not np.array_equal(step(model, cache, t), wanted[t]))
                cache.truncate(0, 0)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        finish(model, model.new_cache(32))
        assert not is_mapped(path)


def test_closed_before_the_end(path: Path) -> None:
    with opened(path) as model:
        step(model, model.new_cache(32))
    assert not is_mapped(path)


def test_asked_for(path: Path) -> None:
    """`pack` means at load, unless `gradual` is asked for as well; without memory for it, never."""
    with opened(path, pack=True, gradual=True) as model:
        assert waits(model)
    with opened(path, gradual=False) as model:
        assert not waits(model)
        assert not is_mapped(path)
    with opened(path, pack=False, gradual=True) as model:
        assert not waits(model)
        most = model.fit.plan
    with open_model(Model, path, REGISTRY, backend="x86", memory_limit=most.anonymous) as model:
        assert not waits(model)
        step(model, model.new_cache(32))
        step(model, model.new_cache(32))
        assert is_mapped(path)
    with pytest.raises(MemoryLimitError):
        open_model(Model, path, REGISTRY, backend="x86", memory_limit=most.anonymous - 1)
