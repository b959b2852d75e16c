"""The native backend of 64-bit ARM: plain C, NEON, and its dot products and matrix products of bytes."""

from __future__ import annotations

from sis_core.backend import Backend
from sis_core.hookspecs import hookimpl


@hookimpl
def sis_register_backends() -> list[Backend]:
    from sis_neon.backend import NeonBackend

    return [NeonBackend()]
