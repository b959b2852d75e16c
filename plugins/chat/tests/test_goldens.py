"""Small templates against transformers 5.24, whose results ``oracle/render.py --goldens`` wrote down."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from sis_chat.errors import TemplateError
from sis_chat.jinja.template import ChatTemplate
from sis_chat.jinja.text import plain
from sis_chat.messages import normalised

HERE = Path(__file__).parent
GOLDENS: dict[str, dict[str, str | None]] = json.loads((HERE / "goldens.json").read_text("utf-8"))


def conversations() -> dict[str, dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("conversations", HERE.parent / "oracle" / "conversations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, dict[str, Any]] = module.CONVERSATIONS
    return found


@pytest.mark.parametrize("name", GOLDENS)
def test_a_template_is_rendered_as_transformers_renders_it(name: str, templates: dict[str, str]) -> None:
    template = ChatTemplate(templates[name], name=name)
    listed = conversations()
    assert listed.keys() == GOLDENS[name].keys()
    for title, conversation in listed.items():
        values = {
            "add_generation_prompt": True, "tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>",
            **conversation,
        }  # fmt: skip
        values["messages"] = normalised(values["messages"])
        expected = GOLDENS[name][title]
        if expected is None:
            with pytest.raises(TemplateError):
                template.render(values)
        else:
            assert plain(template.render(values)) == expected, title


def test_every_template_has_goldens(templates: dict[str, str]) -> None:
    assert templates.keys() == GOLDENS.keys()
