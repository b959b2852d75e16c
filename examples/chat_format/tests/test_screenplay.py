"""All that a chat format promises, on a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import pytest
import sis_screenplay

from sis_core.chat import Content
from sis_core.errors import ChatError
from sis_core.registry import Registry


class Bytes:
    """One token for each byte."""

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return list(text.encode())


class Model:
    tokenizer = Bytes()


def chat() -> Any:
    format = Registry.of(sis_screenplay).get("chat_formats", "screenplay")
    assert format.score == 0
    assert format.open(Model(), "a template") is None
    return format.open(Model(), None)


def test_messages_become_lines() -> None:
    rendered = chat().render([{"role": "system", "content": "An inn."}, {"role": "user", "content": "A room?"}])
    assert rendered.text == "SCENE: An inn.\n\nVISITOR: A room?\n\nHOST:"
    assert bytes(rendered.tokens).decode() == rendered.text
    assert [s.message for s in rendered.segments] == [None, None, 0, None, 1, None]
    assert "\n\nVISITOR:" in rendered.stop


@pytest.mark.parametrize("pieces", [[" Come in."], list(" Come in."), [" ", "Come", " in."]])
def test_a_reply_is_the_same_however_it_is_cut(pieces: list[str]) -> None:
    parser = chat().parser(chat().render([{"role": "user", "content": "Hi"}]))
    events = [event for piece in pieces for event in parser.push(piece)] + parser.end()
    assert all(isinstance(event, Content) for event in events)
    assert "".join(event.text for event in events) == "Come in."


def test_what_it_cannot_express_is_refused() -> None:
    with pytest.raises(ChatError, match="neither tools"):
        chat().render([{"role": "user", "content": "x"}], [{"type": "function"}])
    with pytest.raises(ChatError, match=r"messages\[0\]: a screenplay has no line for a tool"):
        chat().render([{"role": "tool", "content": "x"}])
