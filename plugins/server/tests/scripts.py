"""A plugin for tests: a sampler that makes a model say what stands here."""

from __future__ import annotations

import time

import attrs
from scripted import Saying

from sis_core import hookimpl
from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, integer_option

CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "the coop", "times": 2}}\n</tool_call>'
SCRIPTS = [
    "",
    f"I shall look.\n{CALL}",
    "<think>\nIs there a hen?\n</think>\n\nThere are two hens.",
    f"{CALL}\n{CALL}",
    "Once there was a hen. " * 60,
]
CALLS, THINKS, CALLS_TWICE, GOES_ON = 1, 2, 3, 4
PAUSE = 0.2  # seconds: a reply that goes on is on its way for a minute at least


@attrs.frozen
class Script(Sampler):
    """Says one of `SCRIPTS`, and ends."""

    name = "script"
    order = 150
    script: int = integer_option(0, low=0, high=len(SCRIPTS) - 1, help="which of them")

    def start(self, context: SamplerContext) -> SamplerState:
        assert context.tokenizer is not None
        tokens = context.tokenizer.encode(SCRIPTS[self.script], add_special=False)
        kind = Unhurried if self.script == GOES_ON else Saying
        return kind([*tokens, min(context.tokenizer.end_tokens)])


class Unhurried(Saying):
    """Takes its time for each token."""

    def apply(self, logits: F32) -> None:
        time.sleep(PAUSE)
        super().apply(logits)


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [Script]
