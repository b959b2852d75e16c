"""Q4_0: blocks of 32 values in 4 bits with one half-precision scale."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.quant import QuantFormat
from sis_q4_0.q4_0 import Q4_0


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Q4_0()]
