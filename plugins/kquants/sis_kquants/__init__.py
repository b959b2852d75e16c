"""The K-quants: super-blocks of 256 values whose sub-blocks have quantised scales."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.quant import QuantFormat
from sis_kquants.q2_k import Q2_K
from sis_kquants.q3_k import Q3_K
from sis_kquants.q4_k import Q4_K
from sis_kquants.q5_k import Q5_K
from sis_kquants.q6_k import Q6_K


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Q2_K(), Q3_K(), Q4_K(), Q5_K(), Q6_K()]
