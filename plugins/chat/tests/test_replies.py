# ruff: noqa: E501 - a reply a line
"""Replies: what a template writes of a message is read back as that message, however the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sis_chat.errors import ReplyError
from sis_chat.jinja.template import ChatTemplate
from sis_chat.messages import normalised
from sis_chat.replies import values
from sis_chat.replies.detect import detect
from sis_chat.replies.events import calls_of, text_of
from sis_chat.replies.format import Calls, Region, ReplyFormat
from sis_chat.replies.parser import Parser
from sis_chat.replies.probe import Probe

from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Event, Reasoning

PARAMETERS = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "number": {"type": "integer"},
        "real": {"type": "number"},
        "flag": {"type": "boolean"},
        "items": {"type": "array", "items": {"type": "string"}},
        "inner": {"type": "object", "properties": {"deep": {"type": "string"}}},
    },
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": PARAMETERS}}
    for name in ("look", "take-2", "no.args")
]
DETECTED = {
    "tagged_json": ("call", "<tool_call>\n{arguments}\n</tool_call>", Region("<think>\n", "</think>")),
    "json_list": ("call", "{arguments}", None),
    "name_outside": ("json", "<|call_begin|>functions.{name}:{index}<|call_arguments|>{arguments}<|call_end|>", None),
    "tagged_arguments": ("tags", "\n<tool_call>\n<function={name}>{arguments}\n</function>\n</tool_call>",
                         Region("<think>", "</think>")),
    "python_calls": ("python", "{name}({arguments})", None),
    "channels": ("json", "<|start|>assistant to=functions.{name}<|channel|>commentary json<|message|>{arguments}<|call|>",
                 Region("<|start|>assistant<|channel|>analysis<|message|>", "<|end|>")),
}  # fmt: skip


class Written:
    """A template with its replies."""

    def __init__(self, source: str) -> None:
        self._template = ChatTemplate(source)
        self.format = detect(self.render, source)
        self._probe = Probe(self.render)

    def render(self, messages: Any, tools: Any = (), **options: Any) -> str:
        values = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, **options}
        return self._template.render({**values, "messages": normalised(messages), "tools": list(tools) or None})

    def reply(self, calls: list[tuple[str, Any]], said: str = "", thought: str = "") -> str:
        message: dict[str, Any] = {"content": said}
        if calls:
            message["tool_calls"] = [
                {"id": f"call0000{i}", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(calls)
            ]
        if thought:
            message["reasoning_content"] = thought
        turn = self._probe.turn(message, TOOLS)
        assert turn is not None
        return turn.removeprefix(self.format.header)


def read(format: ReplyFormat, pieces: list[str], begun: str = "", tools: Any = TOOLS) -> list[Event]:
    parser = Parser(format, tools, begun)
    return [event for piece in pieces for event in parser.push(piece)] + parser.end()


def meaning(events: list[Event]) -> tuple[list[tuple[str, Any]], str, str]:
    return calls_of(events), text_of(events, Content), text_of(events, Reasoning)


@pytest.fixture(params=sorted(DETECTED))
def written(request: pytest.FixtureRequest, templates: dict[str, str]) -> Written:
    return Written(templates[request.param])


@pytest.mark.parametrize("name", DETECTED)
def test_the_detector_asks_the_template(name: str, templates: dict[str, str]) -> None:
    format = Written(templates[name]).format
    arguments, call, reasoning = DETECTED[name]
    assert format.calls is not None
    assert (format.calls.arguments, format.calls.call) == (arguments, call)
    assert format.reasoning == reasoning


def test_a_template_without_calls_has_none(templates: dict[str, str]) -> None:
    format = Written(templates["plain"]).format
    assert format.calls is None
    assert format.reasoning is None
    assert (format.header, format.ends) == ("<|assistant|>\n", ("</s>\n",))


WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="<>\\\"'|"), max_size=12
)
TEXTS = WORDS.map(str.strip).filter(bool)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "text": WORDS.map(str.strip).filter(bool) | st.sampled_from(["7", "true", "null", "{}", "[1]"]),
        "number": st.integers(-(10**9), 10**9),
        "flag": st.booleans(),
        "items": st.lists(WORDS, max_size=3),
        "inner": st.dictionaries(st.sampled_from(["deep", "more"]), WORDS, max_size=2),
    },
)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", DETECTED)
def test_round_trip(name: str, templates_once: dict[str, Written], data: st.DataObject) -> None:
    written = templates_once[name]
    parallel = 1 if name == "channels" else 3
    calls = data.draw(st.lists(st.tuples(st.sampled_from(["look", "take-2"]), ARGUMENTS), max_size=parallel))
    said = "" if name == "channels" and calls else data.draw(TEXTS | st.just(""))
    thought = data.draw(TEXTS | st.just("")) if written.format.reasoning else ""
    reply = written.reply(calls, said, thought)
    at = data.draw(st.lists(st.integers(0, len(reply)), max_size=6).map(sorted))
    pieces = [reply[a:b] for a, b in zip([0, *at], [*at, len(reply)], strict=True)]
    expected = (calls, said, thought)
    for cut in ([reply], list(reply), pieces):
        got = meaning(read(written.format, cut))
        assert (got[0], got[1].strip(), got[2].strip()) == expected


@pytest.fixture(scope="module")
def templates_once() -> dict[str, Written]:
    from pathlib import Path

    folder = Path(__file__).parent / "templates"
    return {name: Written((folder / f"{name}.jinja").read_text("utf-8")) for name in DETECTED}


FRAGMENTS = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<function=look>", "<function=", ">", "</function>", "<parameter=text>", "</parameter>",
        "<think>", "</think>", "[TOOL_CALLS]", "[", "]", "{", "}", '"', ",", ":", "\\", '{"name": "look"', '"arguments": {',
        "look", "take-2(", "text='a'", ")", "<|tool_call_start|>[", "]<|tool_call_end|>", "<|calls_begin|>", "<|calls_end|>",
        "<|call_begin|>functions.look:0", "<|call_arguments|>", "<|call_end|>", "<|start|>assistant", "<|channel|>final",
        "<|message|>", " to=functions.look", "<|end|>", "<|im_end|>", "</s>", "\n", " ", "x", "日", "<![CDATA[", "]]>",
    ]
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", DETECTED)
def test_no_reply_is_too_strange(name: str, templates_once: dict[str, Written], data: st.DataObject) -> None:
    format = templates_once[name].format
    parts = data.draw(st.lists(FRAGMENTS, max_size=25))
    reply = "".join(parts)
    whole = meaning(read(format, [reply]))
    assert meaning(read(format, parts)) == whole
    assert meaning(read(format, list(reply))) == whole


def test_a_call_is_told_name_first_and_its_arguments_as_they_come(written: Written) -> None:
    reply = written.reply([("look", {"text": "a long text that comes in pieces", "number": 5})])
    parser = Parser(written.format, TOOLS)
    seen: list[tuple[int, Event]] = []
    for i, character in enumerate(reply):
        seen += [(i, event) for event in parser.push(character)]
    kinds = [type(event) for _, event in seen]
    assert kinds[0] is CallStart
    assert kinds[-1] is CallEnd
    assert set(kinds[1:-1]) == {CallArguments}
    pieces = "".join(event.text for _, event in seen if isinstance(event, CallArguments))
    assert isinstance(seen[-1][1], CallEnd)
    assert pieces == seen[-1][1].arguments
    assert written.format.calls is not None
    if written.format.calls.arguments != "python":  # which is read when it is whole
        assert len(kinds) > 20
        assert seen[0][0] < reply.index("that comes")


def test_what_the_template_began_is_known(templates: dict[str, str]) -> None:
    format = Written(templates["tagged_arguments"]).format
    events = read(format, ["Hm.</think>", "\nYes"], begun="<think>")
    assert events == [Reasoning("Hm."), Content("Yes")]
    events = read(format, ["Yes"], begun="<think>\n\n</think>\n\n")
    assert events == [Content("Yes")]


def test_harmony_has_more_ways_to_call_than_its_template(templates: dict[str, str]) -> None:
    format = Written(templates["channels"]).format
    reply = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"text": "a"}<|call|>'
    )
    for pieces in ([reply], list(reply)):
        events = read(format, pieces, begun="<|start|>assistant")
        assert meaning(events) == ([("look", {"text": "a"})], "I look.", "Hm.")


JSON_CALL = ReplyFormat(ends=("<|im_end|>",), calls=Calls("<tool_call>\n{arguments}\n</tool_call>", "call"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("plain <b>text</b>\n\n", ([], "plain <b>text</b>\n\n", "")),
        ("I would write <tool_call> here", ([], "I would write <tool_call> here", "")),
        ("<tool_call>nonsense</tool_call> and on", ([], "<tool_call>nonsense</tool_call> and on", "")),
        ("<tool_call>{\"name\": 3}</tool_call>", ([("3", {})], "", "")),
        ("<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"look\"}</tool_call>", ([("look", {"a": 1})], "", "")),
        ("<tool_call>{\"name\": \"look\"}</tool_call>", ([("look", {})], "", "")),
        ("<tool_call>{\"name\": \"look\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", ([("look", {"a": 1})], "", "")),
        ("<tool_call>{\"name\":\"look\",\"arguments\":{\"a\":\"}{</tool_call>\"}}</tool_call>",
         ([("look", {"a": "}{</tool_call>"})], "", "")),
        ("<tool_call>\n\n  {\"name\":\"look\",\"arguments\":{}}\n \n</tool_call>\n<tool_call>{\"name\":\"take-2\",\"arguments\":{}}",
         ([("look", {}), ("take-2", {})], "", "")),
        ("a<|im_end|>\nignored", ([], "a", "")),
        ("", ([], "", "")),
        ("<tool_", ([], "<tool_", "")),
        ("😀<tool_call", ([], "😀<tool_call", "")),
    ],
)  # fmt: skip
def test_models_write_as_they_like(reply: str, expected: Any) -> None:
    for pieces in ([reply], list(reply)):
        assert meaning(read(JSON_CALL, pieces)) == expected


def test_a_call_that_is_cut_off_has_no_end() -> None:
    events = read(JSON_CALL, ['<tool_call>{"name": "look", "arguments": {"text": "a'])
    assert isinstance(events[0], CallStart)
    assert not any(isinstance(event, CallEnd) for event in events)
    assert "".join(e.text for e in events if isinstance(e, CallArguments)) == '{"text": "a'


def test_without_tools_nothing_is_a_call() -> None:
    reply = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    assert meaning(read(JSON_CALL, [reply], tools=())) == ([], reply, "")


BARE = ReplyFormat(calls=Calls("{arguments}", "call", arguments_key="parameters"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"name": "look", "parameters": {"text": "x"}}', ([("look", {"text": "x"})], "", "")),
        ('{"name": "unknown", "parameters": {}}', ([], '{"name": "unknown", "parameters": {}}', "")),
        ('{"json": [1, 2]}', ([], '{"json": [1, 2]}', "")),
        ('Look: {"name": "look"}', ([], 'Look: {"name": "look"}', "")),
    ],
)
def test_bare_json_is_a_call_only_by_a_tool_s_name(reply: str, expected: Any) -> None:
    for pieces in ([reply], list(reply)):
        assert meaning(read(BARE, pieces)) == expected


def test_ids_are_the_model_s_or_fresh() -> None:
    format = ReplyFormat(calls=Calls("[CALL]{name}[ID]{id}[ARGS]{arguments}", "json"))
    starts = [e for e in read(format, ["[CALL]look[ID]abc[ARGS]{}"]) if isinstance(e, CallStart)]
    assert [s.id for s in starts] == ["abc"]
    made = {e.id for e in read(JSON_CALL, ['<tool_call>{"name": "look"}</tool_call>' * 3]) if isinstance(e, CallStart)}
    assert len(made) == 3


@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ("7", {"type": "string"}, "7"),
        ("7", {"type": "integer"}, 7),
        ("7", {}, 7),
        ("True", {"type": "boolean"}, True),
        ("['a', 1]", {"type": "array"}, ["a", 1]),
        ("seven", {"type": "integer"}, "seven"),
        ("null", {"type": ["integer", "null"]}, None),
        ("1.5", {"anyOf": [{"type": "number"}, {"type": "string"}]}, 1.5),
        ("__import__('os')", {}, "__import__('os')"),
        ("[" * 5000, {}, "[" * 5000),
    ],
)
def test_types_come_from_the_schema(text: str, schema: Any, expected: Any) -> None:
    assert values.typed(text, schema) == expected


@pytest.mark.parametrize("text", ["a=f(1)", "1", "**{}", "a=1, a", "a=" + "[" * 5000, "a=b'x'"])
def test_python_arguments_are_literals_only(text: str) -> None:
    with pytest.raises(ReplyError):
        values.python_arguments(text)


def test_braces_and_elements() -> None:
    assert values.braces('{a:<|"|>x,}<|"|>,b:[1,{c:true}],d:null}', '<|"|>') == {
        "a": "x,}", "b": [1, {"c": True}], "d": None,
    }  # fmt: skip
    for bad in ('{a:<|"|>x', "{a:[1", "{a}", "{a:1}x", "{a:" + "[" * 500):
        with pytest.raises(ReplyError):
            values.braces(bad, '<|"|>')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}}
    assert values.elements("!<n>1!</n>!<t>1!</t>", "!", schema) == {"n": 1, "t": "1"}
    assert values.elements("!<item>a!</item>!<item>2!</item>", "!", {"type": "array"}) == ["a", 2]


def test_long_replies_take_time_in_proportion() -> None:
    """A quadratic engine would need minutes for this."""
    text = "word " * 20_000
    assert meaning(read(JSON_CALL, [text[i : i + 4] for i in range(0, len(text), 4)]))[1] == text
    arguments = json.dumps({"text": text})
    reply = f'<tool_call>{{"name": "look", "arguments": {arguments}}}</tool_call>'
    assert meaning(read(JSON_CALL, [reply[i : i + 4] for i in range(0, len(reply), 4)]))[0][0][1] == {"text": text}
