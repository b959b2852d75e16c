"""Round trip of replies: what a template makes of an assistant's message is read back as that message.

    python plugins/chat/oracle/replies.py FOLDER_OF_JINJA_FILES

FOLDER can also be named by SIS_CHAT_TEMPLATES. For every template that writes tool calls, and every kind of message:
the rendered turn is cut in many ways, and each time the events must make the message. What a template leaves out (a
second call, a thought) is not expected back; what it cannot write at all is counted as refused.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from conversations import TOOLS, WEATHER
from sis_chat.errors import TemplateError
from sis_chat.jinja.template import ChatTemplate
from sis_chat.jinja.text import plain
from sis_chat.messages import normalised
from sis_chat.replies.detect import detect
from sis_chat.replies.events import calls_of, text_of
from sis_chat.replies.format import ReplyFormat
from sis_chat.replies.parser import Parser
from sis_chat.replies.probe import Probe

from sis_core.chat import Content, Reasoning

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "documents": None}
SIMPLE = {"city": "Bern", "days": 2}
TYPED = {
    "city": "7",
    "days": 7,
    "exact": True,
    "at": {"lat": 47.37, "lon": -8.5},
    "tags": ["a", "b c"],
    "unit": "celsius",
}
UNICODE = {"city": "Zürich 日本 👩‍👧 \u200b <b>&amp;</b>\nنص", "tags": ["é", "ﷺ"]}
QUOTES = {"city": "'a' \"b\" \\n {c} [d] <e>", "tags": ["'", '"']}
CASES: dict[str, tuple[list[tuple[str, Any]], str, str]] = {
    "one": ([("get_weather", SIMPLE)], "", ""),
    "parallel": ([("get_weather", SIMPLE), ("clock", {}), ("get_weather", {"city": "Basel"})], "", ""),
    "typed": ([("get_weather", TYPED)], "", ""),
    "Unicode": ([("get_weather", UNICODE)], "", ""),
    "quotes": ([("get_weather", QUOTES)], "", ""),
    "thinking": ([("get_weather", SIMPLE)], "", "I must look.\n\nSo I ask."),
    "answer and call": ([("get_weather", SIMPLE)], "Let me look it up.", ""),
    "answer": ([], "It is *sunny*.\n\n- 20 °C < 30 & {\"a\": [1]}", ""),
    "thinking and answer": ([], "Sunny.", "Hm.\nYes."),
}  # fmt: skip
ALL_TOOLS = [{**WEATHER, "function": {**WEATHER["function"], "parameters": {
    "type": "object", "properties": {k: v for k, v in WEATHER["function"]["parameters"]["properties"].items()
                                     if k != "either"}}}}, TOOLS[1]]  # fmt: skip


def cuts(text: str, seed: int) -> list[list[str]]:
    """The text whole, in characters, and in pieces of many lengths."""
    found = [[text], list(text)]
    generator = random.Random(seed)
    for longest in (2, 3, 5, 8, 13, 30, 100):
        pieces, at = [], 0
        while at < len(text):
            n = generator.randint(1, longest)
            pieces.append(text[at : at + n])
            at += n
        found.append(pieces)
    return found


def read(format: ReplyFormat, pieces: list[str], tools: Any) -> tuple[list[Any], str, str]:
    parser = Parser(format, tools)
    events = [event for piece in pieces for event in parser.push(piece)] + parser.end()
    return calls_of(events), text_of(events, Content), text_of(events, Reasoning)


def message(calls: list[tuple[str, Any]], said: str, thought: str, as_text: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"content": said}
    if calls:
        made["tool_calls"] = [
            {"id": f"call0000{i}", "type": "function",
             "function": {"name": name, "arguments": json.dumps(a, ensure_ascii=False) if as_text else a}}
            for i, (name, a) in enumerate(calls)
        ]  # fmt: skip
    if thought:
        made["reasoning_content"] = thought
    return made


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["SIS_CHAT_TEMPLATES"])
    counts = {"same": 0, "refused": 0, "different": 0}
    found = without = 0
    for file in sorted(folder.glob("*.jinja")):
        source = file.read_text(encoding="utf-8")
        template = ChatTemplate(source, name=file.name)

        def render(messages: Any, tools: Any = (), template: ChatTemplate = template, **options: Any) -> str:
            values = {**TOKENS, **options, "messages": normalised(messages), "tools": list(tools) or None}
            return template.render({"add_generation_prompt": True, **values})

        format = detect(render, source)
        if format.calls is None:
            without += 1
            print(f"{file.name}: no calls")
            continue
        found += 1
        probe = Probe(render)
        for name, (calls, said, thought) in CASES.items():
            options: dict[str, Any] = {"enable_thinking": True, "thinking": True} if thought else {}
            try:
                turn = probe.turn(message(calls, said, thought, format.arguments_as_text), ALL_TOOLS, **options)
            except TemplateError:
                turn = None
            outcome = "refused"
            if turn is not None:
                outcome = _outcome(file.name, name, format, plain(turn), calls, said, thought)
            counts[outcome] += 1
    print(f"{found} templates write calls, {without} do not; turns read back at every cut: {counts}")
    return int(counts["different"] > 0)


def _outcome(file: str, name: str, format: ReplyFormat, turn: str, calls: Any, said: str, thought: str) -> str:
    reply = turn.removeprefix(format.header)
    # What the template itself leaves out is not expected.
    expected_calls = [call for call in calls if call[0] in turn]
    if len(calls) == 3 and turn.count("get_weather") == turn.count("Bern"):
        expected_calls = calls[:1]
    expected = (
        expected_calls,
        said if said.split("\n")[0] in turn else "",
        thought if thought and thought.split("\n")[0] in turn else "",
    )
    for pieces in cuts(reply, len(turn)):
        got = read(format, pieces, ALL_TOOLS)
        if (got[0], got[1].strip(), got[2].strip()) != expected:
            print(f"{file}: {name}: {len(pieces)} pieces of {reply!r}\n   expected {expected}\n   got      {got}")
            return "different"
    return "same"


if __name__ == "__main__":
    sys.exit(main())
