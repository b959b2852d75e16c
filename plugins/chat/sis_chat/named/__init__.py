"""Chat templates for files that have none, each by its name and never unasked.

Written from the models' public descriptions: the cards and prompt guides of their makers.
"""

from __future__ import annotations

from importlib import resources

from attrs import frozen


@frozen
class NamedTemplate:
    """A template of this plugin.

    Attributes:
        stop: texts that end a reply, for vocabularies in which they are no single token.
    """

    name: str
    stop: tuple[str, ...]

    @property
    def source(self) -> str:
        """The Jinja text."""
        return resources.files(__name__).joinpath(f"{self.name}.jinja").read_text("utf-8")


TEMPLATES = (
    NamedTemplate("alpaca", ("### Instruction:",)),
    NamedTemplate("chatml", ("<|im_end|>",)),
    NamedTemplate("command-r", ("<|END_OF_TURN_TOKEN|>",)),
    NamedTemplate("deepseek", ("<｜end▁of▁sentence｜>",)),
    NamedTemplate("gemma", ("<end_of_turn>",)),
    NamedTemplate("llama2", ("</s>",)),
    NamedTemplate("llama3", ("<|eot_id|>",)),
    NamedTemplate("mistral", ("</s>",)),
    NamedTemplate("openchat", ("<|end_of_turn|>",)),
    NamedTemplate("phi3", ("<|end|>",)),
    NamedTemplate("phi4", ("<|im_end|>",)),
    NamedTemplate("vicuna", ("USER:",)),
    NamedTemplate("zephyr", ("</s>",)),
)
