"""Families with ALiBi: BLOOM and MPT."""

from __future__ import annotations

from typing import Any

from sis_bloom.bloom import Bloom
from sis_bloom.mpt import MPT
from sis_core import hookimpl
from sis_core.architecture import Architecture


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Bloom(), MPT()]
