"""The Qwen family: Qwen 2, 2.5, 3 and the text of 3 VL, dense and with experts."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_qwen.moe import Qwen2Moe, Qwen3Moe
from sis_qwen.qwen import Qwen2, Qwen3, Qwen3VL


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Qwen2(), Qwen3(), Qwen3VL(), Qwen2Moe(), Qwen3Moe()]
