"""Samplers, one file each. The table with all options is in the README."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.sampler import Sampler
from sis_samplers.dry import DRY
from sis_samplers.greedy import Greedy
from sis_samplers.logit_bias import LogitBias
from sis_samplers.min_p import MinP
from sis_samplers.mirostat import Mirostat, MirostatV2
from sis_samplers.penalties import Penalties
from sis_samplers.temperature import Temperature
from sis_samplers.top_k import TopK
from sis_samplers.top_n_sigma import TopNSigma
from sis_samplers.top_p import TopP
from sis_samplers.typical import Typical
from sis_samplers.xtc import XTC


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [
        LogitBias, Penalties, DRY, TopNSigma, TopK, Typical, TopP, MinP, XTC, Temperature, Greedy, Mirostat, MirostatV2,
    ]  # fmt: skip
