"""Products and single rows, against the numpy codecs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend
from sis_core.errors import BackendError, FormatError
from sis_core.quant import BlockFormat, F32Format, Weight
from sis_core.testing.kernels.shared import Shared
from sis_core.testing.kernels.strangers import Decoded, Own, Plain
from sis_core.testing.kernels.weights import (
    EACH_QUANTIZED,
    extreme_rows,
    format_of,
    random_rows,
    taken,
    weight_of,
)


class Linears(Shared):
    """A weight at a time."""

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *EACH_QUANTIZED])
    @pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
    def test_linears(self, backend: NativeBackend, name: str, pack: bool) -> None:
        format, random = format_of(name), np.random.default_rng(1)
        for n_rows, n_cols in ((1, 256), (16, 256), (37, 512), (130, 1280)):
            weight = weight_of(format, random_rows(format, n_rows, n_cols, random), n_cols)
            linear = backend.linear(weight, BackendOptions(pack=pack))
            assert linear is not None
            x = random.standard_normal((31, n_cols)).astype(np.float32)
            x[:, :32] = 0  # a block of zeros has no scale
            wanted = self.product(backend, weight, x)
            whole = linear(x)
            assert np.abs(whole - wanted).max() <= 3e-6 * np.abs(wanted).max(), (n_rows, n_cols)
            for n in (1, 2, 3, 4, 5, 7, 12, 13):  # a row's result does not depend on its neighbours
                assert np.array_equal(linear(x[:n]), whole[:n]), n
            assert linear(x[:0]).shape == (0, n_rows)

    @pytest.mark.parametrize("name", ["F16", "Q4_0"])
    def test_rows_in_several_parts(self, backend: NativeBackend, name: str) -> None:
        """So many rows that they are multiplied a part at a time: in place, with the bits of what was packed."""
        format, random = format_of(name), np.random.default_rng(9)
        weight = weight_of(format, random_rows(format, 100, 5120, random), 5120)
        packed, in_place = (backend.linear(weight, BackendOptions(pack=pack, n_threads=2)) for pack in (True, False))
        assert packed is not None
        assert in_place is not None
        x = random.standard_normal((200, 5120)).astype(np.float32)
        whole = packed(x)
        assert np.array_equal(in_place(x), whole)
        assert np.array_equal(packed(x[150:]), whole[150:])

    @pytest.mark.parametrize("n_cols", [1, 3, 17, 63, 100])
    @pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
    def test_odd_widths(self, backend: NativeBackend, name: str, n_cols: int) -> None:
        random = np.random.default_rng(2)
        weight = weight_of(format_of(name), random_rows(format_of(name), 19, n_cols, random), n_cols)
        x = random.standard_normal((5, n_cols)).astype(np.float32)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        np.testing.assert_allclose(linear(x), self.product(backend, weight, x), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *EACH_QUANTIZED])
    def test_activations_of_any_size(self, backend: NativeBackend, name: str) -> None:
        format, random = format_of(name), np.random.default_rng(8)
        weight = weight_of(format, random_rows(format, 20, 256, random), 256)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((3, 256)).astype(np.float32)
        x[1] = 0
        usual = linear(x)
        assert not usual[1].any()
        for size in (1e6, 1e30, 1e-30):
            wanted = self.product(backend, weight, x * np.float32(size))
            assert np.abs(linear(x * np.float32(size)) - wanted).max() <= 3e-6 * np.abs(wanted).max(), size
        for power in (np.float32(2**20), np.float32(2**-60)):
            assert np.array_equal(linear(x * power), usual * power)
        x[:, 7] = 1e6  # beside it all others are small
        wanted = self.product(backend, weight, x)
        assert np.abs(linear(x) - wanted).max() <= 3e-6 * np.abs(wanted).max()

    @pytest.mark.parametrize("name", ["F16", *EACH_QUANTIZED])
    @pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
    def test_unaligned_slices(self, backend: NativeBackend, name: str, pack: bool) -> None:
        """Rows and columns cut out of a tensor that begins at an odd address, as in a mapped file."""
        format, random = format_of(name), np.random.default_rng(3)
        rows = random_rows(format, 70, 1024, random)
        odd = np.empty(rows.size + 1, np.uint8)[1:]
        odd[:] = rows.reshape(-1)
        weight = Weight.of("w", format, (70, 1024), lambda: odd).rows(5, 66)
        if isinstance(format, BlockFormat):
            weight = weight.cols(256, 768)
        x = random.standard_normal((3, weight.n_cols)).astype(np.float32)
        linear = backend.linear(weight, BackendOptions(pack=pack))
        assert linear is not None
        wanted = self.product(backend, weight, x)
        assert np.abs(linear(x) - wanted).max() <= 3e-6 * np.abs(wanted).max()

    @pytest.mark.parametrize("name", EACH_QUANTIZED)
    def test_extreme_blocks(self, backend: NativeBackend, name: str) -> None:
        """Every byte the same, from 0x00 to 0xff, against full-scale activations of both signs: nothing saturates."""
        format = format_of(name)
        for raw in extreme_rows(format, 16, 256):
            weight = weight_of(format, raw, 256)
            linear = backend.linear(weight, BackendOptions())
            assert linear is not None
            for x in (np.ones((2, 256)), -np.ones((2, 256)), np.where(np.arange(512).reshape(2, 256) % 2, 1, -1)):
                wanted = x @ weight.dequantize().astype(np.float64).T
                np.testing.assert_allclose(linear(x.astype(np.float32)), wanted, rtol=2e-6, atol=2e-3)

    @pytest.mark.parametrize("name", ["F16", *EACH_QUANTIZED])
    def test_poison_stays_in_its_row(self, backend: NativeBackend, name: str) -> None:
        format, random = format_of(name), np.random.default_rng(4)
        weight = weight_of(format, random_rows(format, 16, 256, random), 256)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((6, 256)).astype(np.float32)
        clean = linear(x)
        for value in (np.nan, np.inf, -np.inf):
            x[2, 100] = value
            found = linear(x)
            assert not np.isfinite(found[2]).any()
            assert np.array_equal(np.delete(found, 2, 0), np.delete(clean, 2, 0))

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *EACH_QUANTIZED])
    def test_rows_of_the_embedding(self, backend: NativeBackend, name: str) -> None:
        format, random = format_of(name), np.random.default_rng(5)
        weight = weight_of(format, random_rows(format, 9, 512, random), 512)
        rows, wanted = np.array([8, 0, 3, 3], np.int32), weight.dequantize()
        found = taken(backend.library(), weight, rows)
        np.testing.assert_allclose(found, wanted[rows], rtol=1e-6, atol=1e-7)
        twice = taken(backend.library(), weight, rows, by_position=True)
        np.testing.assert_allclose(twice, 2 * wanted[rows], rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("make", [Plain, Decoded, Own])
    def test_formats_of_strangers(self, backend: NativeBackend, make: Callable[[], Plain]) -> None:
        random = np.random.default_rng(7)
        raw = random.integers(0, 256, (45, 130), dtype=np.uint8)
        weight = weight_of(make(), raw, 130)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((14, 130)).astype(np.float32)
        seen = (
            self.seen(backend, "F16", x) if make is Plain else x
        )  # what Python decodes is kept in F16 where that fits
        np.testing.assert_allclose(linear(x), seen @ weight.dequantize().T, rtol=0, atol=2e-3)

    def test_a_failing_linear_of_a_stranger(self, backend: NativeBackend) -> None:
        weight = weight_of(Own(code=7), np.ones((8, 4), np.uint8), 4)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        with pytest.raises(BackendError, match="failed with code 7"):
            linear(np.ones((1, 4), np.float32))
        with pytest.raises(FormatError, match="made a linear for ABI 99"):
            backend.linear(weight_of(Own(version=99), np.ones((8, 4), np.uint8), 4), BackendOptions())

    def test_progress_and_release(self, backend: NativeBackend) -> None:
        released, seen = [], list[tuple[int, int]]()
        weight = weight_of(F32Format(), np.zeros((40, 32), np.uint8), 8)
        weight = Weight(weight.name, weight.format, weight.shape, weight.read, weight.file_shape,
                        release=lambda: released.append(1))  # fmt: skip
        backend.linear(weight, BackendOptions(progress=lambda done, total: seen.append((done, total))))
        assert released == [1]
        assert seen
        assert seen[-1][0] == seen[-1][1]

    def test_a_workspace_is_used_again(self, backend: NativeBackend) -> None:
        weight = weight_of(F32Format(), random_rows(F32Format(), 48, 64, np.random.default_rng(1)), 64)
        linear = backend.linear(weight, BackendOptions(n_threads=1))
        assert linear is not None
        calls: list[str] = []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                calls.append(name)
                return getattr(backend.library(), name)

        linear.runner.library = Watched()  # type: ignore[assignment]
        for n in (5, 3, 1, 5, 9, 2):
            linear(np.zeros((n, 64), np.float32))
        grown = ["run", "workspace", "run"]
        assert calls == [*grown, "run", "run", "run", *grown, "run"]
