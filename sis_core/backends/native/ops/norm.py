"""Root-mean-square and layer norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.block import Norm

if TYPE_CHECKING:
    from sis_core.backends.native.program import Program, Source, Target

OP = Norm


def lower(program: Program, op: Norm, source: Source, target: Target) -> None:
    """Normalise each row."""
    program.norm(op, source.register, 0, target.register, 0, source.cols, 1, add=target.add)
