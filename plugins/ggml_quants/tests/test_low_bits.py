"""Q1_0 and Q2_0, value by value as ggml's blocks are defined. Blocks that ggml wrote are among the golden ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from sis_ggml_quants.low_bits import Q1_0, Q2_0

from sis_core import Registry
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.weights import file_weights
from sis_core.testing import check_quant_format


def test_the_contract() -> None:
    check_quant_format(Q1_0(), max_error=0.65)
    check_quant_format(Q2_0(), max_error=0.4)


def test_scales_are_fitted() -> None:
    """Against the best of many scales of each sign, in float64; what is made of such steps stays as it is."""
    random = np.random.default_rng(4)
    values = random.standard_normal((50, 64)).astype(np.float32)
    found = Q2_0().dequantize(Q2_0().quantize(values), 64)
    some = np.linspace(0.3, 3, 400)
    scales = np.concatenate([some, -some])[:, None, None]
    errors = ((np.clip(np.rint(values / scales), -1, 2) * scales - values) ** 2).sum(axis=2).min(axis=0)
    assert ((found - values) ** 2).sum() < 1.02 * errors.sum()
    for steps in ((-1, 0, 1), (-1, 0, 1, 2)):
        made = (random.choice(steps, (20, 64)) * random.choice((0.75, -3), (20, 1))).astype(np.float32)
        assert np.array_equal(Q2_0().dequantize(Q2_0().quantize(made), 64), made)


def test_values_are_those_of_the_blocks() -> None:
    random = np.random.default_rng(3)
    for format, bits, numbers in ((Q1_0(), 1, (-1, 1)), (Q2_0(), 2, (-1, 0, 1, 2))):
        block = struct.pack("<e", 0.75) + random.bytes(16)
        packed = int.from_bytes(block[2:], "little")
        wanted = [0.75 * numbers[packed >> (bits * i) & ((1 << bits) - 1)] for i in range(128 // bits)]
        assert format.dequantize_blocks(np.frombuffer(block, np.uint8)[None]).tolist() == [wanted]


def test_a_tensor_of_a_type_that_the_reader_does_not_know_ends_before_its_padding(tmp_path: Path) -> None:
    rows = Q2_0().quantize(np.random.default_rng(5).standard_normal((3, 64)).astype(np.float32))
    writer = GGUFWriter(tmp_path / "w.gguf", {"general.architecture": "llama"})
    for name in ("a", "b"):  # 54 bytes each, 64 with what lies between them
        writer.add_tensor(name, (3, 64), 42, [rows], n_bytes=rows.nbytes)
    writer.write()
    with GGUFFile.open(tmp_path / "w.gguf") as file:
        for weight in file_weights(file, Registry.load()).values():
            assert np.array_equal(weight.raw, rows)
            assert np.array_equal(weight.dequantize(), Q2_0().dequantize(rows, 64))
