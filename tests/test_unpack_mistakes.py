"""An author's mistakes in an `unpack` of a format's own, or in the encoder beside it: each is named by the kit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from test_layout_mistakes import ByRow

from sis_core.arrays import F32, U8
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat
from sis_core.testing import QuantFormatSuite, check_quant_format

POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


class Thirds(QuantFormat):
    """A half-precision scale for a row, and five values of -1, 0 and 1 in a byte, the first one the lowest digit."""

    name, block_size, bits_per_weight = "THIRDS", 32, 8 / 5 + 16 / 2048
    layout = Layout(2, 32, Scale("f16", per="row"), zero=1)
    powers = POWERS
    apart = False

    def row_bytes(self, n_cols: int) -> int:
        super().row_bytes(n_cols)
        return 2 + -(-n_cols // 5)

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        sizes = np.abs(values).astype(np.float64)
        kept = sizes > sizes.mean(1, keepdims=True) / 2
        means = (sizes * kept).sum(1, keepdims=True) / np.maximum(kept.sum(1, keepdims=True), 1)
        scales, digits = np.minimum(means, 65504).astype("<f2"), np.sign(values) * kept + 1
        padded = np.pad(digits, ((0, 0), (0, -values.shape[1] % 5))).astype(np.uint8)
        bytes_of = (
            padded.reshape(len(values), 5, -1).swapaxes(1, 2) if self.apart else padded.reshape(len(values), -1, 5)
        )
        return np.hstack([scales.view(np.uint8), self.packed((bytes_of * self.powers).sum(2, dtype=np.uint8))])

    def packed(self, numbers: U8) -> U8:
        return numbers

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        digits = (rows[:, 2:, None] // POWERS % 3).reshape(len(rows), -1)[:, :n_cols]
        return Unpacked(digits, rows[:, :2].copy().view("<f2").astype(np.float32))


class Halves(ByRow):
    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        codes = np.hstack([rows[:, 2:] & 15, rows[:, 2:] >> 4])
        return evolve(super().unpack(rows, n_cols), codes=codes)


class Early(ByRow):
    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        return evolve(super().unpack(rows, n_cols), scales=rows[:, 1:3].copy().view("<f2").astype(np.float32))


class ReadBehind(ByRow):
    """Its decoder is right, its unpack takes the scale for what ends a row."""

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return self.layout.values(ByRow.unpack(self, rows, n_cols))

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        return ByRow.unpack(self, np.roll(rows, 2, axis=1), n_cols)


def of(base: type[QuantFormat], **changes: Any) -> QuantFormat:
    return type("Wrong", (base,), changes)()  # type: ignore[no-any-return]


def check(format: QuantFormat) -> None:
    suite: Any = type("Suite", (QuantFormatSuite,), {"format": format})()
    suite.test_layout()
    suite.test_encoding()
    suite.test_faithfulness()


def test_right_ones_pass() -> None:
    check(ByRow())
    check_quant_format(Thirds())


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (of(Thirds, powers=POWERS[::-1]), "the digits of each byte, of base 3, are in reverse order"),
        (of(Thirds, apart=True), "digits of a byte, of base 3, for values a fifth of a row apart"),
        (
            of(Thirds, packed=lambda self, numbers: -(-numbers.astype(int) * 256 // 243).astype(np.uint8)),
            "bytes as fractions of 256",
        ),
        (
            of(ByRow, stored=lambda self, rows: np.roll(rows, -2, axis=1)),
            "a row has the codes at byte 0 and the scale",
        ),
        (ReadBehind(), "to the decoder a row has the scale at byte 0 and the codes at byte 2"),
        (
            of(ByRow, scales=lambda self, raw: raw.view(">f2").astype(np.float32)),
            "the scale is f16 at byte 0 to the encoder and f16 at byte 0 with the higher byte first to unpack",
        ),
        (
            of(ByRow, scales=lambda self, raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)),
            "the scale is f16 at byte 0 to the encoder and bf16 at byte 0 to unpack",
        ),
        (Halves(), "neighbours"),
        (Early(), "the scale is f16 at byte 0 to the encoder and f16 at byte 1 to unpack"),
    ],
)
def test_mistakes_are_named(wrong: QuantFormat, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(wrong)
