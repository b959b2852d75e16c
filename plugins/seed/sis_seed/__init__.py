"""The Seed family: Seed-OSS."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_seed.seed_oss import SeedOss


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [SeedOss()]
