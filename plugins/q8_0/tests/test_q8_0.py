"""Q8_0 against the `gguf` package, bit for bit, and against the layout read off ggml's ``block_q8_0``."""

import struct

from block_format import BlockFormatSuite
from sis_q8_0 import sis_register_quant_formats
from sis_q8_0.q8_0 import Q8_0


class TestQ8_0(BlockFormatSuite):  # noqa: N801
    format = Q8_0()

    def codes(self, data: bytes) -> list[int]:
        return list(struct.unpack("<32b", data))


def test_hook() -> None:
    (found,) = sis_register_quant_formats()
    assert (found.name, found.type_id, found.bits_per_weight) == ("Q8_0", 8, 8.5)
