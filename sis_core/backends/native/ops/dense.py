"""One matrix and its bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.block import Dense

if TYPE_CHECKING:
    from sis_core.backends.native.program import Program, Source, Target

OP = Dense


def lower(program: Program, op: Dense, source: Source, target: Target) -> None:
    """Multiply each row."""
    program.linears(source.register, 0, [(op, target.register, 0, target.add)])
