"""Completion in bash, which takes words apart at colons, as names of models have them."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string


@add_completion_class
class WithColons(BashComplete):
    """Reads the line as it was typed, and offers of a value what stands after the last colon that is there already."""

    source_template = BashComplete.source_template.replace("${COMP_WORDS[*]}", "${COMP_LINE:0:COMP_POINT}")

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = "" if not line or line[-1].isspace() else words.pop()
        self._typed = incomplete.rpartition("=")[2].rpartition(":")
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type},{item.value.removeprefix(''.join(self._typed[:2]))}"
