"""The LLaMA family: LLaMA 1 to 3, Mistral, TinyLlama, SmolLM, and families that differ from it in a detail."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_llama.arcee import Arcee
from sis_llama.llama import Llama
from sis_llama.llama4 import Llama4
from sis_llama.mistral3 import Mistral3
from sis_llama.others import Baichuan, InternLM2
from sis_llama.smollm3 import SmolLM3


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Llama(), Llama4(), SmolLM3(), Mistral3(), Arcee(), InternLM2(), Baichuan()]
