"""Q8_0: blocks of 32 values as signed bytes with one half-precision scale."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.quant import QuantFormat
from sis_q8_0.q8_0 import Q8_0


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Q8_0()]
