"""Branches that add to what went into them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_core.arrays import F32
from sis_core.backends.numpy.bound import Binder, Run
from sis_core.block import Residual
from sis_core.step import Plan

OP = Residual


def bind(op: Residual, binder: Binder) -> Run:
    """``x + scale * sum(branch(x))``."""
    branches = [binder.chain(branch) for branch in op.branches]
    scale = np.float32(op.scale)

    def run(x: F32, plan: Plan, state: Any) -> F32:
        y = x
        for branch in branches:
            y = y + scale * branch(x, plan, state)
        return y

    return run
