"""Calls that must be made: the grammar allows what the template writes of a call, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sis_tiny
from attrs import evolve
from sis_chat.chat import JinjaChat
from sis_chat.errors import ReplyError
from sis_chat.messages import normalised

from sis_core.chat import Reply
from sis_core.errors import PluginError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerContext
from sis_core.source import resolve

pytest.importorskip("sis_grammar")
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "n": {"type": "integer"}, "way": {"enum": ["up", "down"]}},
        "required": ["text", "n"],
        "additionalProperties": False,
    }}}
    for name in ("look", "take")
]  # fmt: skip
USER = {"role": "user", "content": "Go."}


class Opened:
    """The built-in model's file without its network."""

    def __init__(self, file: GGUFFile, registry: Registry) -> None:
        self.metadata, self.registry, self.tokenizer = file.metadata, registry, build_tokenizer(file, registry)


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    registry = Registry.load()
    assert sis_tiny
    with GGUFFile.open(resolve(None, registry.records("sources"))) as file:
        yield Opened(file, registry)


def allowed(opened: Opened, sampler: Sampler, text: str) -> bool:
    """Whether a reply may be ``text``, and end there."""
    tokenizer = opened.tokenizer
    state = sampler.start(SamplerContext(tokenizer.n_vocab, tokenizer=tokenizer))
    for token in tokenizer.encode(text, add_special=False):
        logits = np.zeros(tokenizer.n_vocab, np.float32)
        state.apply(logits)
        if logits[token] == -np.inf:
            return False
        state.accept(token)
    logits = np.zeros(tokenizer.n_vocab, np.float32)
    state.apply(logits)
    return any(logits[end] > -np.inf for end in tokenizer.end_tokens)


def reply(chat: JinjaChat, calls: list[tuple[str, Any]], thought: str = "") -> str:
    """What the template writes of the calls, up to the end of the turn."""
    format = chat._with_tools.format
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    message["tool_calls"] = [
        {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]
    if thought:
        message["reasoning_content"] = thought
    render = chat._with_tools.text
    text = str(render(normalised([USER, message]), TOOLS, add_generation_prompt=False))
    text = text.removeprefix(str(render([USER], TOOLS, add_generation_prompt=False))).removeprefix(format.header)
    for end in format.ends:
        text = text.removesuffix(end)
    return text


@pytest.mark.parametrize(
    "name", ["tagged_json", "json_list", "name_outside", "tagged_arguments", "channels", "python_calls", "braces"]
)
def test_what_the_template_writes_of_a_call_is_allowed(name: str, templates: dict[str, str], opened: Opened) -> None:
    chat = JinjaChat(opened, templates[name], name=name)
    closed = evolve(chat.render([USER], TOOLS), reply="")
    required, named = chat.constraint(TOOLS, "required", closed), chat.constraint(TOOLS, "take", closed)
    assert required is not None
    assert named is not None
    take, look = ("take", {"text": "a b", "n": 12}), ("look", {"text": "7", "n": -1, "way": "up"})
    assert allowed(opened, required, reply(chat, [take]).strip("\n"))
    assert allowed(opened, named, reply(chat, [take]).strip("\n"))
    assert allowed(opened, required, reply(chat, [look]).strip("\n"))
    assert not allowed(opened, named, reply(chat, [look]).strip("\n"))
    assert not allowed(opened, required, reply(chat, [("take", {"text": "a", "n": "many"})]).strip("\n"))
    assert not allowed(opened, required, reply(chat, [("other", {"text": "a", "n": 1})]).strip("\n"))
    assert not allowed(opened, required, "I will not.")
    if name != "channels":
        assert not allowed(opened, named, reply(chat, [take, take]).strip("\n"))


def tool(name: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


WIDE = tool("set", {
    "a": {"type": "number"}, "b": {"type": "boolean"}, "c": {"type": "array", "items": {"type": "integer"}},
    "d": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
    "e": {"anyOf": [{"const": 1}, {"const": "one"}]},
}, ("b",))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "inside", "fits"),
    [
        ("python_calls", "b=True", True),
        ("python_calls", "a=-1.5e3, b=False", True),
        ("python_calls", "a=1", False),  # b is required
        ("python_calls", "b=True, a=1", False),  # in the order of the schema
        ("python_calls", "b=True, c=[1, -2], d={\"x\": 'it'}, e='one'", True),
        ("python_calls", "b=True, c=[], d={}, e=1", True),
        ("python_calls", "b=True, c=[1.5]", False),
        ("python_calls", 'b=True, d={"x": None}', True),
        ("python_calls", "b=True, e=2", False),
        ("python_calls", "b=1", False),
        ("python_calls", "", False),
        ("braces", "b:true", True),
        ("braces", "a:2,b:false,c:[1,2],d:{x:<escape>it's, {so}<escape>},e:<escape>one<escape>", True),
        ("braces", "b:true,d:{x:null}", True),
        ("braces", "b:True", False),
        ("braces", "b:true,e:<escape>two<escape>", False),
    ],
)
def test_notations_that_are_no_json(
    name: str, inside: str, fits: bool, templates: dict[str, str], opened: Opened
) -> None:
    chat = JinjaChat(opened, templates[name], name=name)
    required = chat.constraint([WIDE], "required")
    assert required is not None
    calls = {"python_calls": ("<|tool_call_start|>[set(", ")]<|tool_call_end|>"),
             "braces": ("<start_function_call>call:set{", "}<end_function_call>")}  # fmt: skip
    before, after = calls[name]
    assert allowed(opened, required, before + inside + after) is fits
    if fits:
        parser = chat.parser(evolve(chat.render([USER], [WIDE]), reply=""))
        message = Reply.of([*parser.push(before + inside + after), *parser.end()]).message
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["set"]


def test_a_model_may_think_before_it_calls(templates: dict[str, str], opened: Opened) -> None:
    chat = JinjaChat(opened, templates["tagged_json"], name="chat")
    required = chat.constraint(TOOLS, "required")
    assert required is not None
    assert allowed(opened, required, reply(chat, [("take", {"text": "a", "n": 1})], "Hm, <b>.\n").strip("\n"))
    assert not allowed(opened, required, "<think>\nHm.\n</think>\n\nNo.")
    begun = JinjaChat(opened, templates["tagged_arguments"], name="chat").constraint(TOOLS, "required")
    assert begun is not None
    text = (
        "Hm.</think>\n\n<tool_call>\n<function=take>\n<parameter=text>\nx\n</parameter>\n<parameter=n>\n3\n</parameter>"
    )
    assert allowed(opened, begun, text + "\n</function>\n</tool_call>")
    assert not allowed(opened, begun, text.removeprefix("Hm.</think>") + "\n</function>\n</tool_call>")
    assert not allowed(opened, begun, text.replace("3", "three") + "\n</function>\n</tool_call>")


def test_what_cannot_be_required_is_refused(templates: dict[str, str], opened: Opened) -> None:
    chat = JinjaChat(opened, templates["tagged_json"], name="chat")
    assert chat.constraint(TOOLS, "auto") is None
    assert chat.constraint([], "none") is None
    with pytest.raises(ReplyError, match="there is no tool 'jump' to call"):
        chat.constraint(TOOLS, "jump")
    strict = [tool("set", {"n": {"type": "integer", "maximum": 9}})]
    with pytest.raises(ReplyError, match="the keyword 'maximum' cannot be required"):
        JinjaChat(opened, templates["python_calls"], name="chat").constraint(strict, "required")
    with pytest.raises(ReplyError, match="does not say how tools are called"):
        JinjaChat(opened, templates["plain"], name="chat").constraint(TOOLS, "required")


def test_the_grammar_plugin_is_named_where_it_is_missing(templates: dict[str, str], opened: Opened) -> None:
    class Without(Opened):
        def __init__(self) -> None:
            self.metadata, self.tokenizer, self.registry = opened.metadata, opened.tokenizer, Registry.of()

    with pytest.raises(PluginError, match="no installed plugin brings the sampler 'grammar'"):
        JinjaChat(Without(), templates["tagged_json"], name="chat").constraint(TOOLS, "required")
