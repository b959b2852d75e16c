"""The Falcon family: Falcon 7B and 40B."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_falcon.falcon import Falcon


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Falcon()]
