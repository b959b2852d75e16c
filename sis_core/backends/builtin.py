"""What the core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from sis_core.backend import Backend
from sis_core.backends.numpy import NumpyBackend
from sis_core.backends.stub import StubBackend
from sis_core.cache.snapkv import SnapKV
from sis_core.eviction import Eviction
from sis_core.hookspecs import hookimpl
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat
from sis_core.source import FileSource, Source


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [F32Format(), F16Format(), BF16Format()]


@hookimpl
def sis_register_backends() -> list[Backend]:
    return [NumpyBackend(), StubBackend()]


@hookimpl
def sis_register_sources() -> list[Source]:
    return [FileSource()]


@hookimpl
def sis_register_evictions() -> list[type[Eviction]]:
    return [SnapKV]
