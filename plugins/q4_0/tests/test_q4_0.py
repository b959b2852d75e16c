"""Q4_0 against the `gguf` package, bit for bit, and against the layout read off ggml's ``block_q4_0``."""

from block_format import BlockFormatSuite
from sis_q4_0 import sis_register_quant_formats
from sis_q4_0.q4_0 import Q4_0


class TestQ4_0(BlockFormatSuite):  # noqa: N801
    format = Q4_0()

    def codes(self, data: bytes) -> list[int]:
        return [(data[i % 16] >> (4 if i >= 16 else 0) & 15) - 8 for i in range(32)]


def test_hook() -> None:
    (found,) = sis_register_quant_formats()
    assert (found.name, found.type_id, found.bits_per_weight) == ("Q4_0", 2, 4.5)
