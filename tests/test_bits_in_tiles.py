"""Bytes of tiles beside a file's, of layouts as an author may declare them: at most 1.15 times as many, but for some.

The file's are counted from the layout, with digits of base 3 five to a byte, as the densest file would have them.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sis_core import Registry
from sis_core.arrays import U8
from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.kinds import MUCH_MORE, Kind, kind_for
from sis_core.errors import FormatError
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat, Weight

BACKENDS = [b for b in Registry.load().records("backends") if isinstance(b, NativeBackend) and not b.idle_reason()]
pytestmark = pytest.mark.skipif(not BACKENDS, reason="no native backend works on this machine")
SIZES = {"f32": 32, "f16": 16, "bf16": 16, "e8m0": 8, "uint": 8, "int": 8}
GROUPS = (16, 32, 64, 128, "row")
CODES = ("plain", "table", "minimum", "ternary", "tables of rows")


class Counted(QuantFormat):
    """Numbers as a good quantiser may find them, in rows of as many bytes as they need."""

    name, block_size = "COUNTED", 1

    def __init__(self, layout: Layout, scales: str, group: int | str) -> None:
        self.__dict__["layout"], self._scales, self._group = layout, scales, group

    def row_bytes(self, n_cols: int) -> int:
        layout = self.layout
        assert layout is not None
        whole = self._scales in ("uint", "int")
        numbers = SIZES[self._scales] * self._n_groups(n_cols) + 16 * (n_cols // 256) * whole
        tables = 16 << layout.bits if layout.table == "row" else 0
        codes = n_cols * 8 / 5 if layout.ternary else n_cols * layout.bits
        return math.ceil((codes + numbers * (1 if layout.minimum is None else 2) + tables) / 8)

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        layout, random = self.layout, np.random.default_rng(len(rows))
        assert layout is not None
        shape = (len(rows), self._n_groups(n_cols))
        upper = np.full((len(rows), n_cols // 256), 2.0**-14, np.float32)
        scales = random.uniform(0.002, 0.02, shape).astype(np.float32)
        if self._scales == "bf16":
            scales = (scales.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        if self._scales == "f16":
            scales = scales.astype(np.float16).astype(np.float32)
        if self._scales == "e8m0":
            scales = np.exp2(random.integers(-12, -3, shape)).astype(np.float32)
        whole = self._scales in ("uint", "int")
        if whole:
            scales = random.integers(1, 256 if self._scales == "uint" else 128, shape).astype(np.float32)
        codes = random.integers(0, 3 if layout.ternary else 1 << layout.bits, (len(rows), n_cols), np.uint8)
        tables = np.tile(np.arange(1 << layout.bits, dtype=np.float32), (len(rows), 1))
        minima = None if layout.minimum is None else -scales
        supers = (upper if whole else None, upper if whole and minima is not None else None)
        return Unpacked(codes, scales, minima, *supers, tables if layout.table == "row" else None)

    def _n_groups(self, n_cols: int) -> int:
        return n_cols // self._group if isinstance(self._group, int) else 1


def format_of(bits: int, codes: str, scales: Any, group: int | str) -> Counted | None:
    """None for what nobody declares."""
    whole, per_row = scales in ("uint", "int"), group == "row"
    if (whole and per_row) or (codes == "ternary" and bits != 2) or (codes == "table" and bits > 6):
        return None
    if codes == "tables of rows" and not (per_row and scales == "f32" and bits <= 4):
        return None
    times = Scale("f16", per=256) if whole else None
    scale = Scale(scales, Bits(0, 8) if whole else None, per="row" if group == "row" else None, times=times)
    table: Any = tuple(float(2 * i + 1 - (1 << bits)) for i in range(1 << bits)) if codes == "table" else None
    layout = Layout(
        bits, 32 if isinstance(group, str) else group, scale, scale if codes == "minimum" else None,
        zero={"plain": 1 << bits - 1, "ternary": 1}.get(codes, 0), ternary=codes == "ternary",
        table="row" if codes == "tables of rows" else table,
    )  # fmt: skip
    return Counted(layout, scales, group)


def times_the_file(format: Counted, n_cols: int) -> float | None:
    """Bytes of a tile beside those of its sixteen rows; None where there is no tile."""
    library, data = BACKENDS[0].library(), np.zeros(16 * format.row_bytes(n_cols), np.uint8)
    kind = kind_for(library, Weight.of("w", format, (16, n_cols), lambda: data))
    return int(library.tile_bytes(kind.number, abi.TILE, n_cols)) / data.size if isinstance(kind, Kind) else None


def excepted(bits: int, codes: str, scales: str, group: int | str) -> str:
    """Why tiles may take more, as docs/formats.md says; empty where they may not."""
    narrow = scales in ("e8m0", "uint", "int")  # in a file: tiles have 16 bits, or theirs are of few groups
    if group == 16 and (codes == "minimum" or bits >= 5 or bits <= 2):
        return "scales for 16 columns have tiles of 3 and 4 bits"
    if codes == "minimum" and bits == 1:
        return "codes of one bit with a minimum have two"
    if codes == "ternary" and group == 32:
        return "scales for 32 columns have tiles of two bits"
    if codes == "table" and bits == 5:
        return "tables of 32 numbers are of 64"
    if bits == 1 and group == 32 and narrow:
        return "of one bit, scales of 16 bits are felt"
    if bits == 2 and codes == "minimum" and scales == "e8m0" and group in (32, 128):
        return "of two bits, minima of 16 bits are felt, of which 128 columns have two"
    if codes == "tables of rows" and bits < 4:
        return "tables of rows have codes of 4 bits"
    if group == "row" and (bits == 3 or codes == "minimum"):
        return "one scale for a row lies there for every 32 or 64 columns"
    if codes == "minimum" and scales == "e8m0" and bits == 5 and group == 128:
        return "scales lie there for every 32 columns"
    return ""


GRID = [
    (*choice, format)
    for choice in itertools.product((1, 2, 3, 4, 5, 6, 8), CODES, SIZES, GROUPS)
    if (format := format_of(*choice)) is not None
]


def test_tiles_keep_the_bits_of_a_layout() -> None:
    """And every reason for an exception is needed."""
    found = {choice: times_the_file(format, 2048) for *choice_, format in GRID for choice in [tuple(choice_)]}
    more = {choice for choice, times in found.items() if times is None or times > MUCH_MORE}
    unsaid = {choice: found[choice] for choice in more if not excepted(*choice)}
    assert not unsaid
    reasons = {reason for choice in found if (reason := excepted(*choice))}
    assert reasons == {excepted(*choice) for choice in more}
    assert len(found) > 300
    assert len(more) < len(found) / 3


PAGE = (Path(__file__).parent.parent / "docs" / "formats.md").read_text("utf-8")
SAID = re.findall(r"^\| (ternary|\d bits?)(?:, ([\w. ]+))? \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("bits", "codes", "times"), SAID, ids=[" ".join(row[:2]) for row in SAID])
def test_the_table_of_the_page(bits: str, codes: str, times: str) -> None:
    """docs/formats.md says the same of halves."""
    kind = codes if codes in CODES else "ternary" if bits == "ternary" else "plain"
    found = []
    for group in GROUPS:
        format = format_of(2 if bits == "ternary" else int(bits[0]), kind, "f16", group)
        assert format is not None
        part = times_the_file(format, 2048)
        found.append("16 bits" if part is None else f"**{part:.2f}**" if part > MUCH_MORE else f"{part:.2f}")
    assert found == times.split(" | ")


def test_the_page_has_every_kind_of_codes() -> None:
    assert len(SAID) == 16


@pytest.mark.parametrize("n_cols", [576, 960, 2880])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_one_scale_for_a_row_of_any_length(bits: int, n_cols: int) -> None:
    """The last group of a row may have fewer columns."""
    for codes in ("plain", "minimum", "tables of rows"):
        format = format_of(bits, codes, "f32", "row")
        if format is None or excepted(bits, codes, "f32", "row"):
            continue
        times = times_the_file(format, n_cols)
        assert times is not None
        assert times <= MUCH_MORE


class Signs(QuantFormat):
    """A power of two for 32 values, and a sign for each."""

    name, block_size = "SIGNS", 32
    layout = Layout(1, 32, Scale("e8m0"), table=(-1.0, 1.0))

    def row_bytes(self, n_cols: int) -> int:
        return n_cols // 32 * 5

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        parts = rows.reshape(len(rows), -1, 5)
        codes = np.unpackbits(np.ascontiguousarray(parts[:, :, 1:]), axis=2, bitorder="little")
        return Unpacked(codes.reshape(len(rows), n_cols), np.exp2(parts[:, :, 0].astype(np.float32) - 127))


class Twos(Signs):
    """The same with codes of two bits from 0 on."""

    name, layout = "TWOS", Layout(2, 32, Scale("e8m0"), zero=1)

    def row_bytes(self, n_cols: int) -> int:
        return n_cols // 32 * 9

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        parts = rows.reshape(len(rows), -1, 9)
        codes = parts[:, :, 1:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
        return Unpacked(codes.reshape(len(rows), n_cols), np.exp2(parts[:, :, 0].astype(np.float32) - 127))


def signs(format: Signs, exponents: U8, codes: U8) -> Weight:
    rows = np.concatenate([exponents[:, :, None], codes], axis=2).reshape(-1)
    return Weight.of("w", format, (len(exponents), exponents.shape[1] * 32), lambda: rows)


def product(weight: Weight) -> None:
    """Against float64, with activations that 8 bits hold."""
    linear = BACKENDS[0].linear(weight, BackendOptions(n_threads=1))
    assert linear is not None
    x = np.random.default_rng(1).integers(-127, 128, (5, weight.n_cols)).astype(np.float32)
    x[:, ::32] = 127
    values = weight.dequantize().astype(np.float64)
    assert (np.abs(linear(x) - x @ values.T) <= 1e-6 * (np.abs(x) @ np.abs(values).T)).all()


def way(weight: Weight) -> str:
    handling = BACKENDS[0].handling(weight, BackendOptions(n_threads=1))
    assert handling is not None
    return handling.way


def test_powers_of_two_are_halves_where_those_have_their_range(caplog: pytest.LogCaptureFixture) -> None:
    """Else bfloats with codes of 4 bits: seen in rows that are looked at, or when one comes along that was not."""
    random, small = np.random.default_rng(5), 127 - 40
    exponents = random.integers(127 - 24, 127 + 15, (40, 64), np.uint8)
    codes = random.integers(0, 256, (40, 64, 4), np.uint8)
    packed = "packed into tiles as its layout says; they take 1.21 times its bytes in the file"
    assert way(signs(Signs(), exponents, codes)) == packed
    product(signs(Signs(), exponents, codes))
    assert not caplog.text
    exponents[1] = small
    unseen = signs(Signs(), exponents, codes)
    assert way(unseen) == packed
    product(unseen)
    assert "w is packed into tiles with scales in bfloat16, in more memory than was planned" in caplog.text
    exponents[39] = small
    assert way(signs(Signs(), exponents, codes)).endswith("they take 3.61 times its bytes in the file")
    product(signs(Signs(), exponents, codes))


def test_scales_of_zeros_choose_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A group of zeros may have the smallest scale that there is, or the largest."""
    random = np.random.default_rng(6)
    exponents = random.integers(127 - 12, 127, (40, 64), np.uint8)
    codes = random.integers(0, 256, (40, 64, 4), np.uint8)
    exponents[::3, 2], exponents[1::3, 2], codes[:, 2] = 0, 250, 0b01010101
    weight = signs(Twos(), exponents, np.concatenate([codes, codes], axis=2))
    assert way(weight) == "packed into tiles as its layout says"
    product(weight)
    assert not caplog.text


def test_more_scales_than_a_layout_says_are_refused() -> None:
    """Tiles have no place for them."""

    class Finer(Counted):
        def _n_groups(self, n_cols: int) -> int:
            return n_cols // 32

    found = format_of(4, "plain", "f16", 128)
    assert found is not None
    assert found.layout is not None
    format = Finer(found.layout, "f16", 128)
    data = np.zeros(16 * format.row_bytes(256), np.uint8)
    weight = Weight.of("w", format, (16, 256), lambda: data)
    with pytest.raises(FormatError, match="unpack gives 8 scales for a row whose layout has at most 2 in tiles"):
        BACKENDS[0].linear(weight, BackendOptions(n_threads=1))
