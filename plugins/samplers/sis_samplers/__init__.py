"""Samplers, one file each. The table with all options is in the README."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.sampler import Sampler
from sis_samplers.greedy import Greedy
from sis_samplers.min_p import MinP
from sis_samplers.temperature import Temperature
from sis_samplers.top_k import TopK
from sis_samplers.top_p import TopP


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [TopK, TopP, MinP, Temperature, Greedy]
