"""How wide registers are: what passes from op to op has no place in them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_native_gradual import opened, pytestmark  # noqa: F401 - the mark is this module's too
from test_native_passing import feed_forward, op, weight
from tiny_models import metadata, tensors

from sis_core.backends.native import abi, passing
from sis_core.backends.native.forward import NativeForward
from sis_core.backends.native.registers import needed
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.step import Batch, Run

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

GATE = UP = (64, 32)


def registers(ops: list[abi.Op], cols: list[int]) -> list[tuple[int, int]]:
    passing.mark(ops, touched := passing.touched_by(ops))
    return [(one.cols, one.output) for one in needed(ops, touched, cols)]


def test_what_passes_has_no_columns_but_rows_where_linears_may_not_pass() -> None:
    assert registers(feed_forward(weight(*GATE), weight(*UP)), [32, 32, 64, 64]) == [(32, 0), (0, 1), (0, 0), (0, 0)]


def test_what_is_read_again_has() -> None:
    ops = [*feed_forward(weight(*GATE), weight(*UP)), op(abi.COPY, 3, abi.OUT, src_at=31, width=1)]
    assert registers(ops, [32, 32, 64, 64]) == [(32, 0), (0, 1), (64, 0), (64, 0)]


def test_only_output_rows_come_after_they_are_gathered() -> None:
    ops = [op(abi.GATHER, 0, 1, width=32), op(abi.NORM, 1, 2, width=32, count=1), op(abi.COPY, 2, abi.OUT, width=32)]
    assert registers(ops, [32, 64, 32]) == [(32, 0), (32, 1), (32, 1)]
    ops.insert(0, op(abi.COPY, 0, 1, width=16))
    assert registers(ops, [32, 64, 32]) == [(32, 0), (32, 0), (32, 1)]


def test_registers_that_experts_name_are_whole() -> None:
    experts = abi.Experts(chosen=1, up_values=2, n_out=32)
    ops = [op(kind, 0, 0, experts=ctypes.addressof(experts)) for kind in (abi.ROUTE, abi.EXPERTS, abi.COMBINE)]
    assert registers(ops, [32, 24, 512]) == [(32, 0), (24, 0), (512, 0)]


def write_wide(path: Path, n_ff: int, in_q4_0: Sequence[str] = ()) -> Path:
    """A model as wide as this in Q8_0, but for tensors with these words in their names."""
    random = np.random.default_rng(1)
    writer = GGUFWriter(path, metadata(llama__feed_forward_length=n_ff, llama__context_length=512))
    for name, array in tensors().items():
        shape = tuple(n_ff if n == 64 else n for n in array.shape)
        if len(shape) == 1:
            writer.add_tensor(name, shape, "F32", [array])
            continue
        format, n_bytes = ("Q4_0", 18) if any(word in name for word in in_q4_0) else ("Q8_0", 34)
        blocks = random.integers(0, 256, (shape[0], shape[1] // 32, n_bytes), np.uint8)
        blocks[:, :, :2] = 0, 0x1C  # the scale: 0.004
        writer.add_tensor(name, shape, format, [blocks])
    writer.write()
    return path


def worked_in(path: Path, n_ff: int) -> int:
    """Bytes in which a prompt of 512 rows works, of a model as wide as this."""
    with opened(write_wide(path, n_ff), pack=True) as model:
        assert isinstance(model.forward, NativeForward)
        model.step(Batch([5] * 512, (Run(0, 0, 512),), [511]), model.new_cache(512))
        (scratch,) = model.forward._runner._idle
        assert scratch._workspace is not None
        return scratch._workspace.nbytes


@pytest.mark.skipif(X86Backend().instructions in ("", "portable"), reason="rows are multiplied a few at a time")
def test_a_prompt_works_in_no_more_than_it_writes(tmp_path: Path) -> None:
    """A wider feed-forward costs a prompt the rows that its last matrix reads, and none of what its first two give."""
    more = worked_in(tmp_path / "wide.gguf", 2048) - worked_in(tmp_path / "narrow.gguf", 1024)
    assert 0 < more < 512 * 1024 * np.float32().nbytes


@pytest.mark.parametrize("in_q4_0", ["ffn_gate", "ffn_up"])
def test_tiles_of_two_formats_have_room_side_by_side(in_q4_0: str, tmp_path: Path) -> None:
    """Gate and up are one phase, and those that are read in place take a different number of bytes."""
    path, found = write_wide(tmp_path / "model.gguf", 64, [in_q4_0, "ffn_down"]), []  # no other tiles take as much
    for pack in (True, False):
        with opened(path, pack=pack) as model:
            cache = model.new_cache(128)
            found.append(model.step(Batch([*range(5, 101)], (Run(0, 0, 96),), [0, 95]), cache).values)
    assert np.isfinite(found[0]).all()
    assert np.array_equal(*found)
