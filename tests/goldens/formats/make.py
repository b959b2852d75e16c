"""Make the golden files beside this one, by ggml's own C functions:

    python tests/goldens/formats/make.py path/to/libggml-base.so

Needs numpy only. The committed files were made once, with the library of llama-cpp-python 0.3.36 (ggml 0.25.3); a
format's layout never changes, so there is no reason to make them again except to add cases.

Each file: ``rows``, random blocks with tame scales, in hex; ``values``, their float32 by ``dequantize_row_*`` in
little-endian hex; ``encoded``, for formats whose encoder is a plain formula, float32 rows and the bytes that
``quantize_row_*_ref`` makes of them.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

# name, block_size, type_size, offsets of the binary16 scales in a block
FORMATS = [
    ("Q4_0", 32, 18, [0]),
    ("Q4_1", 32, 20, [0, 2]),
    ("Q5_0", 32, 22, [0]),
    ("Q5_1", 32, 24, [0, 2]),
    ("Q8_0", 32, 34, [0]),
    ("Q2_K", 256, 84, [80, 82]),
    ("Q3_K", 256, 110, [108]),
    ("Q4_K", 256, 144, [0, 2]),
    ("Q5_K", 256, 176, [0, 2]),
    ("Q6_K", 256, 210, [208]),
    ("IQ2_XXS", 256, 66, [0]),
    ("IQ2_XS", 256, 74, [0]),
    ("IQ3_XXS", 256, 98, [0]),
    ("IQ1_S", 256, 50, [0]),
    ("IQ4_NL", 32, 18, [0]),
    ("IQ3_S", 256, 110, [0]),
    ("IQ2_S", 256, 82, [0]),
    ("IQ4_XS", 256, 136, [0]),
    ("IQ1_M", 256, 56, []),
    ("TQ1_0", 256, 54, [52]),
    ("TQ2_0", 256, 66, [64]),
    ("MXFP4", 32, 17, []),
    ("NVFP4", 64, 36, []),
]
ENCODED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]


def blocks(rng: np.random.Generator, n: int, type_size: int, scales: list[int]) -> np.ndarray:
    found = rng.integers(0, 256, (n, type_size), np.uint8)
    for at in scales:
        found[:, at : at + 2] = rng.uniform(-2, 2, (n, 1)).astype("<f2").view(np.uint8)
    return found


def rows(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Rows of ``n`` values of many kinds; none whose encoding C leaves undefined.

    No negative zeros: C and the gguf package give the scale of a block of zeros different signs.
    """
    normal = rng.standard_normal((6, n)).astype(np.float32)
    halves = (rng.integers(-16, 17, n) / 2).astype(np.float32)
    halves[0] = -8
    return {
        "normal": normal[0],
        "large": normal[1] * np.float32(1e4),
        "small": normal[2] * np.float32(1e-6),
        "the scale is a denormal binary16": normal[3] * np.float32(1e-7),
        "the scale overflows binary16": normal[4] * np.float32(1e9),
        "largest float32": np.where(normal[5] > 0, np.finfo(np.float32).max, -1).astype(np.float32) / 4,
        "zeros": np.zeros(n, np.float32),
        "halves": halves,
        "one value": np.full(n, -0.37, np.float32),
        "one value in one block": np.where(np.arange(n) == n // 3, -5, 0).astype(np.float32),
    }


def main(library: str) -> None:
    ggml = ctypes.CDLL(library)
    for seed, (name, block_size, type_size, scales) in enumerate(FORMATS):
        rng = np.random.default_rng(seed)
        c_name = name[:-1].lower() + "K" if name.endswith("_K") else name.lower()
        n = 512 // block_size
        data = blocks(rng, n, type_size, scales)
        if name == "MXFP4":
            data[:, 0] = rng.integers(100, 140, n)
        if name == "IQ1_M":  # its binary16 lies in the top nibbles of four 16-bit words at the end
            words = data.view("<u2")[:, -4:]
            half = int(np.float16(0.3).view(np.uint16))
            words[:] = words & 0x0FFF | np.array(
                [half << 12 & 0xF000, half << 8 & 0xF000, half << 4 & 0xF000, half & 0xF000]
            )
        values = np.zeros(n * block_size, "<f4")
        getattr(ggml, f"dequantize_row_{c_name}")(
            ctypes.c_void_p(data.ctypes.data), ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size)
        )
        assert np.isfinite(values).all(), name
        golden = {"rows": data.tobytes().hex(), "values": values.tobytes().hex(), "encoded": {}}
        for case, row in rows(rng, max(64, block_size)).items() if name in ENCODED else ():
            out = np.zeros(row.size // block_size * type_size, np.uint8)
            getattr(ggml, f"quantize_row_{c_name}_ref")(
                ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(row.size)
            )
            golden["encoded"][case] = [row.astype("<f4").tobytes().hex(), out.tobytes().hex()]
        Path(__file__).with_name(f"{name}.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
