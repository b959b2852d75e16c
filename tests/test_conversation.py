"""Conversations: the events of replies, and a past that is read once, whatever ids it was written with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import sis_chat
import sis_llama
import sis_samplers
import sis_tokenizers
from scripted import Says
from tiny_models import EOS, metadata, write_model

from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Finish, Reasoning, Rendered, Reply, Segment, Usage
from sis_core.errors import ChatError, ContextError, PluginError, SamplerError, SisError
from sis_core.registry import Registry
from sis_core.texts.conversation import Conversation, constrained
from sis_core.texts.known_ids import with_known
from sis_core.texts.language_model import LanguageModel, load

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
THINKING = (
    "{% for m in messages %}<s>{{ m.role }}: {% if m.role == 'assistant' and m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
HE = 258  # "he", which the tokenizer never spells "h" "e"


def registry() -> Registry:
    return Registry.of(sis_chat, sis_llama, sis_samplers, sis_tokenizers)


def written(folder: Path, template: str | None, n_ctx: int = 512) -> Path:
    return write_model(folder / "chat.gguf", metadata(tokenizer__chat_template=template, llama__context_length=n_ctx))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    with load(written(tmp_path_factory.mktemp("chat"), TEMPLATE), registry=registry(), kv_type="f32") as model:
        yield model


@pytest.fixture
def conversation(model: LanguageModel) -> Iterator[Conversation]:
    with model.conversation() as conversation:
        yield conversation


def ids(text: str) -> tuple[int, ...]:
    """Each character by itself, as no tokenizer that merges would spell it."""
    return tuple(text.encode())


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_what_was_read_or_written_is_not_read_again(model: LanguageModel, conversation: Conversation) -> None:
    messages: list[Any] = []
    known: list[int] = []
    for question, answer in (("the sea", "he there"), ("again the", "the"), ("and", "x")):
        messages.append(user(question))
        prompt, rows = conversation.tokens(messages), conversation.stats.rows
        assert prompt[: len(known)] == known, "the ids of the reply are used, and not the tokenizer's"
        reply = conversation.reply(messages, samplers=[Says(ids(answer))])
        assert reply.message == {"role": "assistant", "content": answer}
        assert reply.usage == Usage(len(prompt), max(len(known) - 1, 0), len(answer) + 1)
        assert conversation.stats.rows - rows == len(prompt) - max(len(known) - 1, 0) + len(answer)
        assert conversation.stats.rows_again == 0
        messages.append(reply.message)
        known = [*prompt, *ids(answer), EOS]
    assert conversation.tokens(messages) != list(conversation.chat.render(messages).tokens), "the test tells them apart"


def test_a_reply_goes_on_from_the_ids_that_were_written(model: LanguageModel, conversation: Conversation) -> None:
    messages: list[Any] = [user("the")]
    messages.append(conversation.reply(messages, samplers=[Says(ids("he the"))]).message)
    messages.append(user("go on"))
    prompt = conversation.tokens(messages)
    said = conversation.reply(messages, sampler="greedy", max_tokens=12, ignore_end=True)
    alone = model.generate(prompt, sampler="greedy", max_tokens=12, ignore_end=True, spell_special=True)
    assert said.message["content"] == "".join(alone)
    assert prompt != list(conversation.chat.render(messages).tokens)


def test_a_template_that_drops_thoughts_goes_back_to_where_the_reply_began(tmp_path: Path) -> None:
    path = written(tmp_path, THINKING)
    with load(path, registry=registry(), kv_type="f32") as model, model.conversation() as conversation:
        messages: list[Any] = [user("the sea")]
        first = conversation.tokens(messages)
        events = list(conversation.stream(messages, samplers=[Says(ids("<think>he he</think>x"))]))
        reply = Reply.of(events)
        assert reply.message == {"role": "assistant", "content": "x", "reasoning_content": "he he"}
        messages += [reply.message, user("more")]
        rows, prompt = conversation.stats.rows, conversation.tokens(messages)
        again = conversation.reply(messages, sampler="greedy", max_tokens=9, ignore_end=True)
        assert again.usage == Usage(len(prompt), len(first), 9)
        assert conversation.stats.rows - rows == len(prompt) - len(first) + 8
        with model.conversation() as other:
            assert other.reply(messages, sampler="greedy", max_tokens=9, ignore_end=True).message == again.message


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_reply_that_is_stopped_stays_known(conversation: Conversation, how: str) -> None:
    messages: list[Any] = [user("the sea")]
    events = []
    stream = conversation.stream(messages, samplers=[Says(ids("he he he"))])
    for event in stream:
        events.append(event)
        if len(events) == 4 and how == "stop":
            conversation.stop()
        elif len(events) == 4:
            stream.close()
    reply = Reply.of(events)
    assert reply.message["content"] == "he he"
    assert reply.finish_reason == ("cancelled" if how == "stop" else "error")
    messages += [reply.message, user("more")]
    rows = conversation.stats.rows
    usage = conversation.reply(messages, samplers=[Says()]).usage
    assert usage is not None
    assert usage.n_cached == len(conversation.tokens(messages[:1])) + 4
    assert conversation.stats.rows - rows == usage.n_prompt - usage.n_cached


def test_texts_that_others_wrote_keep_the_tokenizers_ids(model: LanguageModel) -> None:
    spelt = Segment("</s>", ids("</s>"), 0)
    rendered = Rendered((Segment("<s>", (256,)), spelt, Segment("!", ids("!"), 0)))
    known = [256, EOS, ord("!"), ord("?")]  # a control token, where the message spells its name
    assert with_known(rendered, known, (), model.tokenizer) == [256, *ids("</s>!")]
    assert with_known(rendered, known, (0,), model.tokenizer) == known[:3]


@pytest.mark.parametrize("known", ["", "th", "the", "thex", "then some"])
def test_known_ids_are_used_as_far_as_they_spell_the_same(model: LanguageModel, known: str) -> None:
    tokens = (ord("t"), HE, ord("n"))
    rendered = Rendered((Segment("then", tokens, 0),))
    found = with_known(rendered, ids(known), (0,), model.tokenizer)
    assert model.detokenize(found) == "then"
    assert found[:3] == ([*ids("the")] if known.startswith("the") else [ord("t"), HE, ord("n")])


def test_chat_without_a_conversation(model: LanguageModel) -> None:
    events = list(model.chat([user("the")], stream=True, samplers=[Says(ids("hey"))]))
    prompt = model.chat_format().render([user("the")]).tokens
    assert events == [Content("h"), Content("e"), Content("y"), Finish("end", Usage(len(prompt), 0, 4))]
    assert model.chat([user("the")], samplers=[Says(ids("hey"))]) == Reply.of(events)
    assert model.chat([user("the")], samplers=[Says(ids("hey"))], stop="e").message["content"] == "h"
    assert model.chat([user("the")], samplers=[Says(ids("hey"))], max_tokens=2).finish_reason == "length"


def test_a_reply_is_put_together_from_its_events() -> None:
    usage = Usage(1, 0, 9)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    events = [Reasoning("I "), Reasoning("see"), Content("Yes"), CallStart(0, "a", "f"), CallArguments(0, "{}")]
    whole = [*events, CallEnd(0, "{}"), CallStart(1, "b", "g"), Finish("tool_calls", usage)]
    message = {"role": "assistant", "content": "Yes", "reasoning_content": "I see"}
    assert Reply.of(whole) == Reply(message | {"tool_calls": [call]}, "tool_calls", usage)
    assert Reply.of(events) == Reply(message, "error", None)


def test_a_constraint_stands_before_what_truncates(model: LanguageModel) -> None:
    @attrs.frozen
    class First(Says):
        order = 190

    request = constrained(model.request("the", top_k=5, temperature=1.0, repeat_penalty=1.1), First())
    names = [sampler.name for sampler in request.samplers]
    assert names.index("penalties") < names.index("says") < names.index("top-k")


def test_what_is_missing_is_named(tmp_path: Path, model: LanguageModel) -> None:
    with pytest.raises(PluginError, match="pip install sis-grammar"):
        model.chat([user("x")], schema={"type": "object"})
    with pytest.raises(ChatError, match="cannot be a call"):
        model.chat([user("x")], schema={}, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(ChatError, match=r"nor a chat format\. Formats are: alpaca, (?!.*jinja)"):
        model.chat_format("klingon")
    with pytest.raises(SamplerError, match="no installed sampler has an option 'warmth'"):
        model.chat([user("x")], warmth=2)
    with load(written(tmp_path, None), registry=registry()) as bare:
        with pytest.raises(ChatError, match=r"chat.gguf: the file has no chat template.*--template"):
            bare.chat([user("x")])
        assert bare.chat([user("x")], template="alpaca", max_tokens=3, ignore_end=True).finish_reason == "length"
        (tmp_path / "mine.jinja").write_text(TEMPLATE)
        assert bare.chat_format(str(tmp_path / "mine.jinja")).render([user("x")]).text == "<s>user: x</s><s>assistant: "
    with (
        load(tmp_path / "chat.gguf", registry=Registry.of(sis_llama, sis_samplers, sis_tokenizers)) as none,
        pytest.raises(ChatError, match="pip install sis-chat"),
    ):
        none.chat_format()


@pytest.mark.parametrize(
    "wrong",
    [{"stop": 5}, {"stop": [b"x"]}, {"stop": ""}, {"tool_choice": None}, {"template_options": ["x"]},
     {"max_tokens": "9"}, {"seed": 1.5}, {"context": 5}],
    ids=str,
)  # fmt: skip
def test_options_are_checked(conversation: Conversation, wrong: dict[str, Any]) -> None:
    with pytest.raises(SisError, match=f"^{next(iter(wrong))}: is "):
        conversation.reply([{"role": "user", "content": "a"}], **wrong)


def test_a_chat_that_does_not_fit_is_refused_and_leaves_the_conversation_as_it_was(conversation: Conversation) -> None:
    messages: list[Any] = [user("the sea")]
    messages.append(conversation.reply(messages, samplers=[Says(ids("he"))]).message)
    with pytest.raises(ContextError, match="does not fit into the context of 512"):
        conversation.reply([user("x" * 600)])
    messages.append(user("more"))
    usage = conversation.reply(messages, samplers=[Says()]).usage
    assert usage is not None
    assert usage.n_cached > 20


def test_a_sampler_that_fails_ends_the_reply(conversation: Conversation) -> None:
    with pytest.raises(SisError):
        conversation.reply([user("the")], samplers=[Says((300,))])
    assert conversation.reply([user("the")], samplers=[Says(ids("x"))]).message["content"] == "x"
