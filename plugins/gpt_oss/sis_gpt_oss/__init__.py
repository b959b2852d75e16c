"""The gpt-oss family."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_gpt_oss.gpt_oss import GptOss


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [GptOss()]
