"""The Phi family: Phi-1.5, Phi-2, Phi-3, Phi-3.5 and Phi-4 mini, medium and 14B, and Phi-3.5-MoE."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_phi.phi2 import Phi2
from sis_phi.phi3 import Phi3
from sis_phi.phimoe import PhiMoe


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Phi2(), Phi3(), PhiMoe()]
