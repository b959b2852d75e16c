"""One adapter over the codecs of the `gguf` package. The package is imported when a format is first used."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.layout import Unpacked
from sis_core.quant import QuantFormat
from sis_core.sides import SideName
from sis_ggml_quants.layouts import LAYOUTS

TINY = 2.0**-120  # below this the encoders of `gguf` divide by numbers whose inverse overflows


class Decoded(QuantFormat):
    """A format that the `gguf` package can decode."""

    def __init__(self, name: str, type_id: int, block_size: int, type_size: int) -> None:
        # A format is usually a class of its own; here one class serves a table, so the constants are the instance's.
        layout = LAYOUTS.get(name)
        self.__dict__.update(name=name, type_id=type_id, block_size=block_size, type_size=type_size, layout=layout)

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        self.check_rows(rows, n_cols)
        decoded = self._codec("dequantize")(rows)
        return np.asarray(decoded, np.float32).reshape(len(rows), n_cols)

    def _codec(self, verb: str) -> Any:
        import gguf
        from gguf import quants

        try:
            qtype = gguf.GGMLQuantizationType[self.name]
            quants._type_traits[qtype]
        except KeyError:
            raise FormatError(
                "the installed gguf package does not know this format", where=self.name, fix="`pip install -U gguf`"
            ) from None

        def run(array: Any) -> Any:
            # Infinite scales in damaged blocks, and values too large for a scale, give infinities and NaN as in C.
            with np.errstate(all="ignore"):
                return getattr(quants, verb)(array, qtype)

        return run


class Encoded(Decoded):
    """A format that the package can encode too."""

    def quantize(self, values: F32) -> U8:
        self.check_values(values)
        n_rows, n_cols = values.shape
        sized = np.where(np.abs(values) < TINY, np.float32(0), values)
        return np.asarray(self._codec("quantize")(sized), np.uint8).reshape(n_rows, self.row_bytes(n_cols))


class TQ1_0(Encoded):  # noqa: N801 - ggml's name
    """Five digits in base 3 in a byte, which are no bits that a layout could say the place of.

    A byte is its five digits as a fraction of 256, rounded up: multiplied by three it has the first one above it. Digit
    ``d`` of 32 bytes comes before digit ``d + 1``, then those of 16 bytes, then four digits of the last 4.
    """

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        blocks = rows.reshape(-1, self.type_size)
        fractions = blocks[:, None, :52] * np.array([[1], [3], [9], [27], [81]], np.uint8)  # (n_blocks, 5, 52)
        digits = (fractions * np.uint16(3) >> 8).astype(np.uint8)
        parts = digits[:, :, :32], digits[:, :, 32:48], digits[:, :4, 48:]
        codes = np.concatenate([part.reshape(len(blocks), -1) for part in parts], axis=1)
        scales = np.ascontiguousarray(blocks[:, 52:]).view("<f2").astype(np.float32)
        return Unpacked(codes.reshape(len(rows), n_cols), scales.reshape(len(rows), -1))


class NVFP4(Decoded):
    """Files hold one scale more for each tensor or expert, and scales for activations, which are not used here.

    Source: llama.cpp's converter and ``llama_model_base::load_tensors``.
    """

    def side_names(self, tensor: str) -> dict[str, SideName]:
        stem = tensor.removesuffix(".weight")
        experts = stem.endswith("_exps")  # of which one that no text has reached may be all zeros
        return {
            "scale": SideName(f"{stem}.scale", "expert" if experts else "tensor", zeros=experts),
            "input_scale": SideName(f"{stem}.input_scale", None),
        }


FORMATS = (
    Encoded("Q4_1", 3, 32, 20),
    Encoded("Q5_0", 6, 32, 22),
    Encoded("Q5_1", 7, 32, 24),
    Decoded("IQ2_XXS", 16, 256, 66),
    Decoded("IQ2_XS", 17, 256, 74),
    Decoded("IQ3_XXS", 18, 256, 98),
    Decoded("IQ1_S", 19, 256, 50),
    Decoded("IQ4_NL", 20, 32, 18),
    Decoded("IQ3_S", 21, 256, 110),
    Decoded("IQ2_S", 22, 256, 82),
    Decoded("IQ4_XS", 23, 256, 136),
    Decoded("IQ1_M", 29, 256, 56),
    TQ1_0("TQ1_0", 34, 256, 54),
    Encoded("TQ2_0", 35, 256, 66),
    Encoded("MXFP4", 39, 32, 17),
    NVFP4("NVFP4", 40, 64, 36),
)
