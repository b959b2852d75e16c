"""A plugin for tests: each reply is an agent's, a call that writes a file or, when its result is there, a word."""

from __future__ import annotations

import json

import attrs
from scripted import Saying

from sis_core import hookimpl
from sis_core.sampler import Sampler, SamplerContext, SamplerState

WRITES = "printf 'two hens' > hens.txt && echo written"
DONE = "There are two hens."
ARGUMENTS = {
    "exec_command": {"cmd": WRITES},
    "shell_command": {"command": WRITES},
    "shell": {"command": ["bash", "-c", WRITES]},
}
"""By what Codex's versions call it."""


@attrs.frozen
class Agent(Sampler):
    """Says what an agent would."""

    name = "agent"
    order = 150
    default = True

    def start(self, context: SamplerContext) -> SamplerState:
        assert context.tokenizer is not None
        read = context.tokenizer.decode(context.prompt)
        said = DONE
        if "<tool_response>" not in read:
            name = next(name for name in ARGUMENTS if f'"name": "{name}"' in read)
            said = f"<tool_call>\n{json.dumps({'name': name, 'arguments': ARGUMENTS[name]})}\n</tool_call>"
        tokens = context.tokenizer.encode(said, add_special=False)
        return Saying([*tokens, min(context.tokenizer.end_tokens)])


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [Agent]
