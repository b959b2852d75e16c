"""The formats of ggml that no other part brings, by way of the `gguf` package."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.quant import QuantFormat
from sis_ggml_quants.adapter import FORMATS


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return list(FORMATS)
