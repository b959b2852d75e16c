"""Compare what templates make of conversations here and in transformers, their own renderer.

    python plugins/chat/oracle/render.py FOLDER_OF_JINJA_FILES

in an environment with transformers (measured with 5.24) and sis-chat. FOLDER is for instance ``models/templates`` of
llama.cpp; it can also be named by SIS_CHAT_TEMPLATES. Prints each pair that differs, and counts. A pair where both
refuse counts as equal. With ``--goldens FILE`` it writes what transformers makes instead, for the tests.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from conversations import CONVERSATIONS
from sis_chat.errors import MessageError, TemplateError
from sis_chat.jinja.template import ChatTemplate
from sis_chat.messages import normalised

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def theirs(source: str, conversation: dict[str, Any]) -> str:
    from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

    values = {"add_generation_prompt": True, **TOKENS, **conversation}
    messages = _normalize_chat_messages(values.pop("messages"))
    texts, _ = render_jinja_template([messages], chat_template=source, **values)
    return str(texts[0])


def ours(template: ChatTemplate, conversation: dict[str, Any]) -> str:
    values = {"add_generation_prompt": True, "tools": None, "documents": None, **TOKENS, **conversation}
    return template.render({**values, "messages": normalised(values["messages"])})


def main() -> int:
    arguments = sys.argv[1:]
    goldens = arguments.pop(arguments.index("--goldens") + 1) if "--goldens" in arguments else None
    folder = Path(next((a for a in arguments if a != "--goldens"), os.environ.get("SIS_CHAT_TEMPLATES", ".")))
    files = sorted(folder.glob("*.jinja"))
    if goldens is not None:
        Path(goldens).write_text(json.dumps(_goldens(files), ensure_ascii=False, indent=1) + "\n", "utf-8")
        return 0
    equal = refused = whole = 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        template = ChatTemplate(source, name=file.name)
        differing = []
        for name, conversation in CONVERSATIONS.items():
            expected, their_error = _try(lambda c=conversation, s=source: theirs(s, c), Exception)
            got, error = _try(lambda c=conversation, t=template: ours(t, c), (TemplateError, MessageError))
            if expected == got:
                equal += 1
                refused += got is None
            else:
                differing.append(name)
                print(f"{file.name}: {name}: {their_error or 'rendered'} / {error or 'rendered'}")
                if expected is not None and got is not None:
                    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), None)
                    at = min(len(expected), len(got)) if at is None else at
                    around = slice(max(0, at - 30), at + 50)
                    print(f"   expected {expected[around]!r}\n   got      {got[around]!r}")
        whole += not differing
    pairs = len(files) * len(CONVERSATIONS)
    print(
        f"{equal} of {pairs} pairs equal ({refused} of them refused by both), {whole} of {len(files)} templates whole"
    )
    return int(equal < pairs)


def _goldens(files: list[Path]) -> dict[str, dict[str, str | None]]:
    """What transformers makes of every conversation with every template, or null where it refuses."""
    return {
        file.stem: {
            name: _try(lambda c=conversation, f=file: theirs(f.read_text("utf-8"), c), Exception)[0]
            for name, conversation in CONVERSATIONS.items()
        }
        for file in files
    }


def _try(function: Any, errors: Any) -> tuple[str | None, str]:
    try:
        return str(function()), ""
    except errors as error:
        return None, f"{type(error).__name__}: {error}"[:160]


if __name__ == "__main__":
    sys.exit(main())
