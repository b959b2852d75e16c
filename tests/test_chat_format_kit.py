"""The kit finds every fault of a chat format that it is there to find, and says which."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sis_core import load
from sis_core.chat import ChatFormat, Content, Finish, Rendered, Segment
from sis_core.testing import check_chat_format
from sis_core.texts.language_model import LanguageModel

EXAMPLE = Path(__file__).parent.parent / "examples/chat_format/sis_screenplay.py"


def screenplay() -> Any:
    spec = importlib.util.spec_from_file_location("screenplay_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RIGHT = screenplay()


@pytest.fixture(scope="module")
def model(sis_model_file: Path) -> Iterator[LanguageModel]:
    with load(sis_model_file) as found:
        yield found


def format_with(**changes: Any) -> ChatFormat:
    """The example's format, of which some methods are others; each gets the right chat first."""

    class Faulty:
        def __init__(self, chat: Any) -> None:
            self._chat = chat

        def __getattr__(self, name: str) -> Any:
            right = getattr(self._chat, name)
            if name not in changes:
                return right
            return lambda *args, **kwargs: changes[name](right, *args, **kwargs)

    class FaultyFormat(ChatFormat):
        name = changes.get("title", "faulty")

        def open(self, model: Any, template: str | None) -> Any:
            if "open" in changes:
                return None
            return Faulty(RIGHT.ScreenplayFormat().open(model, template))

    return FaultyFormat()


class Parser:
    """A parser of one function."""

    def __init__(self, push: Any) -> None:
        self._push = push

    def push(self, piece: str) -> Any:
        return self._push(piece)

    def end(self) -> Any:
        return []


def changed(**fields: Any) -> Any:
    return lambda right, *args, **kwargs: evolve(right(*args, **kwargs), **fields)


def without_messages(right: Any, *args: Any, **kwargs: Any) -> Rendered:
    rendered: Rendered = right(*args, **kwargs)
    return evolve(rendered, segments=tuple(evolve(s, message=None) for s in rendered.segments))


def test_the_example_keeps_the_contract(model: LanguageModel) -> None:
    check_chat_format(RIGHT.ScreenplayFormat(), model)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"title": "two words"}, "which nobody can type"),
        ({"open": None}, "does not answer for the model"),
        ({"render": lambda right, messages, *a: messages[0].update(x=1) or right(messages)}, "changed the messages"),
        ({"render": lambda right, messages, *a: right(messages).text}, "not a Rendered"),
        ({"render": changed(segments=(Segment("x", (10**9,), 0),))}, "ids outside the vocabulary"),
        ({"render": changed(segments=(Segment("x", (), 0),))}, "renders no tokens"),
        ({"render": without_messages}, "no segment quotes message 0"),
        ({"render": changed(stop=("",))}, "which are not texts"),
        ({"render": lambda right, messages, *a: right(messages) if messages else messages[0]}, "raised IndexError"),
        ({"parser": lambda right, r: Parser(lambda p: [Content(p.strip())] if p.strip() else [])}, "how it is cut"),
        ({"parser": lambda right, r: Parser(lambda p: [])}, "is read as"),
        ({"parser": lambda right, r: Parser(lambda p: [Finish("stop")])}, "says Finish"),
        ({"constraint": lambda right, *a: object()}, "need not call a tool"),
        ({"describe": lambda right: "two\nlines"}, "not one line"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], fault: str, model: LanguageModel) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_chat_format(format_with(**changes), model)


def test_a_chat_that_changes_is_found(model: LanguageModel) -> None:
    n = iter(range(100))
    unstable = format_with(render=lambda right, m, *a: evolve(right(m), reply=str(next(n))))
    with pytest.raises(AssertionError, match="another chat when asked again"):
        check_chat_format(unstable, model)


def test_a_format_that_obeys_users_is_found(model: LanguageModel) -> None:
    encode = model.tokenizer.encode

    def obeying(right: Any, messages: Any, *args: Any) -> Rendered:
        rendered: Rendered = right(messages)
        read = [
            evolve(s, tokens=tuple(encode(s.text, add_special=False, parse_special=True))) for s in rendered.segments
        ]
        return evolve(rendered, segments=tuple(read))

    with pytest.raises(AssertionError, match="as that control token"):
        check_chat_format(format_with(render=obeying), model)
