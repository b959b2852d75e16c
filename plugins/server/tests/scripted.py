"""A plugin for tests: a sampler that makes a model say what stands here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs
import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, integer_option

CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "the coop", "times": 2}}\n</tool_call>'
SCRIPTS = ["", f"I shall look.\n{CALL}", "<think>\nIs there a hen?\n</think>\n\nThere are two hens.", f"{CALL}\n{CALL}"]
CALLS, THINKS, CALLS_TWICE = 1, 2, 3


@attrs.frozen
class Script(Sampler):
    """Says one of `SCRIPTS`, and ends."""

    name = "script"
    order = 150
    script: int = integer_option(0, low=0, high=len(SCRIPTS) - 1, help="which of them")

    def start(self, context: SamplerContext) -> SamplerState:
        assert context.tokenizer is not None
        tokens = context.tokenizer.encode(SCRIPTS[self.script], add_special=False)
        return ScriptState([*tokens, min(context.tokenizer.end_tokens)])


class ScriptState(SamplerState):
    def __init__(self, tokens: Sequence[int], at: int = 0) -> None:
        self._tokens, self._at = tokens, at

    def apply(self, logits: F32) -> None:
        logits[np.arange(len(logits)) != self._tokens[self._at]] = -np.inf

    def accept(self, token: int) -> None:
        self._at += 1

    def copy(self) -> Self:
        return type(self)(self._tokens, self._at)


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [Script]
