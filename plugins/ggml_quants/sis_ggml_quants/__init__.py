"""The formats of ggml that no other part brings, most of them by way of the `gguf` package."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.quant import QuantFormat
from sis_ggml_quants.adapter import FORMATS
from sis_ggml_quants.low_bits import Q1_0, Q2_0


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [*FORMATS, Q1_0(), Q2_0()]
