"""The native backend of x86-64: plain C, AVX2, AVX-512 VNNI and AMX."""

from __future__ import annotations

from sis_core.backend import Backend
from sis_core.hookspecs import hookimpl


@hookimpl
def sis_register_backends() -> list[Backend]:
    from sis_x86.backend import X86Backend

    return [X86Backend()]
