"""The terminal: what a person types, what is shown and kept, and what falls out of a full context."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console
from scripted import Says
from sis_chat.terminal import files
from sis_chat.terminal.program import Program
from sis_chat.terminal.screen import MarkdownPage, PlainPage, end_of_blocks
from sis_chat.terminal.talk import Talk
from tiny_models import metadata, write_model

from sis_core.chat import CallEnd, CallStart, Content, Event, Reasoning
from sis_core.cli.main import group
from sis_core.errors import ChatError, SisError
from sis_core.sampler import SamplerContext, SamplerState
from sis_core.texts.context import Sinks
from sis_core.texts.language_model import LanguageModel, load

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% if not loop.last or m.role != 'assistant' %}</s>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
N_CTX = 128
TOOL = {"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {}}}}


@attrs.frozen
class Replies(Says):
    """Says one text after the other."""

    texts: list[str] = attrs.field(factory=list)

    def start(self, context: SamplerContext) -> SamplerState:
        return Says(tuple(self.texts.pop(0).encode())).start(context)


class Typed:
    """What is typed, line by line; a prompt that begins with a text is answered by that text and the line."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines, self.prompts, self.given = list(lines), list[str](), ""

    def read(self, prompt: str, given: str = "") -> str:
        self.prompts.append(prompt)
        self.given = given
        if not self.lines:
            raise EOFError
        return given + self.lines.pop(0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = metadata(tokenizer__chat_template=TEMPLATE, llama__context_length=4096)
    return write_model(tmp_path_factory.mktemp("terminal") / "chat.gguf", values)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[LanguageModel]:
    with load(path, n_ctx=512) as model:
        yield model


@pytest.fixture
def talked(model: LanguageModel, tmp_path: Path) -> Iterator[Any]:
    """Type lines, with the model's replies; the program afterwards, and what it told."""
    with model.conversation(max_tokens=N_CTX) as conversation:

        def run(lines: Sequence[str], replies: Sequence[str], **options: Any) -> tuple[Program, list[str]]:
            told: list[str] = []
            talk = Talk(conversation, {"samplers": [Replies(texts=list(replies))], **options}, tell=told.append)
            program = Program(talk, Typed(lines), PlainPage, tmp_path / "kept.json", tell=told.append, interactive=True)
            program.run()
            return program, told

        yield run


def said(program: Program) -> list[str]:
    return [message["content"] for message in program.talk.messages]


def test_commands(talked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["/system Be brief.", "one", "two", "/retry", "/edit three", "four", "/undo",
             f"/save {tmp_path / 'x.json'}", "/stats", "/tools", "/help", "/set temperature 0.5"]  # fmt: skip
    program, told = talked(lines, ["a", "b", "c", "d", "e"])
    assert said(program) == ["one", "a", "three", "d"]
    assert capsys.readouterr().out == "a\nb\nc\nd\ne\n"
    messages = [{"role": "system", "content": "Be brief."}, *program.talk.messages]
    for file in ("x.json", "kept.json"):
        assert json.loads((tmp_path / file).read_text()) == {"model": "chat.gguf", "messages": messages}
    assert any(line.startswith("last reply: ") and "ended by end" in line for line in told)
    assert "forgotten: four" in told
    assert "no effect on samplers that are ready" in told[-1]


@pytest.mark.parametrize("leaving", ["/quit", "/exit", "/bye"])
def test_who_says_so_leaves(talked: Any, leaving: str) -> None:
    program, told = talked(["one", leaving, "two"], ["a", "b"])
    assert said(program) == ["one", "a"]
    assert not any("/quit" in line for line in told)


def test_a_message_may_begin_with_a_slash(talked: Any) -> None:
    program, told = talked(["//etc/hosts is what?", "/etc/hosts is what?"], ["a file", "b"])
    assert said(program) == ["/etc/hosts is what?", "a file"]
    assert told[-1].startswith("chat: there is no command /etc/hosts. See /help; a message that begins with a slash")


def test_what_was_typed_wrong_is_told_and_changes_nothing(talked: Any, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"messages": 3}')
    lines = ["one", "/undone", "/set warmth 3", "/set seed x", "/load", f"/load {tmp_path / 'none.json'}",
             f"/load {tmp_path / 'odd.json'}", f"/tools {tmp_path / 'odd.json'}"]  # fmt: skip
    program, told = talked(lines, ["a"])
    assert said(program) == ["one", "a"]
    told = [line for line in told if "tokens, " not in line]
    assert [line.partition(".")[0] for line in told[:3]] == [
        "chat: there is no command /undone (did you mean 'undo'?)",
        "/set: there is no option 'warmth'",
        "/set seed: is 'x', which is no number",
    ]
    assert told[3] == "/load: name a file"
    assert told[4].endswith("none.json: cannot be read: No such file or directory")
    assert told[5].endswith("odd.json: is not a conversation: it has no list of messages")
    assert told[6] == "tools: are not a list"
    program.talk.begin()
    with pytest.raises(ChatError, match="nothing was said yet"):
        program.talk.undo()


def test_edit_offers_the_last_message(talked: Any) -> None:
    program, _ = talked(["one", "/edit", " and more"], ["a", "b"])
    assert said(program) == ["one and more", "b"]


def test_options_are_changed_by_name(model: LanguageModel) -> None:
    with model.conversation() as conversation:
        talk = Talk(conversation, {})
        for name, text in (("temperature", "0.5"), ("--top-k", "7"), ("max-tokens", "3"), ("seed", "1")):
            talk.set(name, text)
        assert talk.options == {"temperature": 0.5, "top_k": 7, "max_tokens": 3, "seed": 1}
        talk.set("seed", None)
        with pytest.raises(SisError, match="temperature"):
            talk.set("temperature", "-1")
        assert talk.options == {"temperature": 0.5, "top_k": 7, "max_tokens": 3}


def test_oldest_turns_fall_out_of_a_full_context_whole(talked: Any) -> None:
    program, told = talked([f"{i} " + "x" * 20 for i in range(6)], [f"{i} " + "y" * 9 for i in range(6)])
    talk = program.talk
    assert len(talk.messages) == 12, "what fell out is kept, but not read"
    assert talk.first > 0
    assert talk.messages[talk.first]["role"] == "user"
    assert "the context of 128 tokens is full: the oldest turn falls out" in told
    assert len(talk.conversation.ids) <= N_CTX


def test_with_sinks_no_turn_falls_out(talked: Any, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "context", Sinks(4))
    replies = [f"{i} " + "y" * 9 for i in range(6)]
    program, told = talked([f"{i} " + "x" * 20 for i in range(6)], replies)
    assert said(program)[1::2] == replies
    assert program.talk.first == 0
    assert len(program.talk.conversation.ids) > 2 * N_CTX
    assert not any("falls out" in line for line in told)
    assert program.talk.conversation.stats.rows < 1.2 * len(program.talk.conversation.ids), "nothing is read twice"


def test_a_reply_that_fills_the_context_goes_on(talked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    program, told = talked(["x" * 20, "more"], ["y" * 20, "z" * 100, "z" * 20])
    talk = program.talk
    assert talk.messages[-1]["content"].rstrip("z") == ""
    assert len(talk.messages[-1]["content"]) > 50
    assert talk.first == 2
    assert "the context of 128 tokens is full: the oldest turn falls out" in told
    assert talk.speed.usage.n_generated == len(talk.messages[-1]["content"]) + 1


def test_a_message_that_never_fits_is_given_back(talked: Any) -> None:
    program, told = talked(["one", "x" * 200], ["a", "b"])
    assert "does not fit into the context of 128" in told[1]
    assert said(program) == ["one", "a"]
    assert program.talk.first == 0
    assert program.input.given == "x" * 200  # type: ignore[attr-defined]


def test_calls_are_shown_and_answered(talked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = (Path(__file__).parent / "templates" / "tagged_json.jinja").read_text()
    file = write_model(tmp_path / "calls.gguf", metadata(tokenizer__chat_template=template, llama__context_length=1024))
    call = '<tool_call>\n{"name": "rain", "arguments": {"in": "Bern"}}\n</tool_call>'
    with load(file) as model, model.conversation() as conversation:
        options = {"samplers": [Replies(texts=[call, "wet"])]}
        talk = Talk(conversation, options, tools=[TOOL])
        typed = Typed(["Is it raining?", "yes"])
        Program(talk, typed, PlainPage, None, interactive=False).run()
    assert capsys.readouterr().out == 'rain({"in": "Bern"})\nwet\n'
    assert typed.prompts == ["> ", "rain returns> ", "> "]
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "tool", "assistant"]


def test_lines_of_a_pipe_are_messages(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIS_STATE", str(tmp_path))
    chat = ["chat", "-m", str(path), "--sampler", "greedy", "-n", "5", "--ctx", "512"]
    done = CliRunner().invoke(group, chat, input="one \\\nline\n\n/stats\ntwo\n", catch_exceptions=False)
    assert done.exit_code == 0
    (kept,) = (tmp_path / "chats").glob("*.json")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (kept, kept.parent, tmp_path / "typed")] == [0o600, 0o700, 0o600]
    before = files.read(kept).messages
    assert [m["content"] for m in before if m["role"] == "user"] == ["one \nline", "two"]
    done = CliRunner().invoke(group, [*chat, "-c"], input="three\n", catch_exceptions=False)
    assert files.read(kept).messages[: len(before)] == before
    assert len(files.read(kept).messages) == 6
    done = CliRunner().invoke(group, [*chat, "--no-history"], input="four\n", catch_exceptions=False)
    assert list((tmp_path / "chats").iterdir()) == [kept]


def test_refusals_come_before_anything_is_typed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIS_STATE", str(tmp_path))
    for options, message in (
        (["-c"], "there is no conversation yet"),
        (["--temperature", "-1"], "temperature"),
        (["--template", "none.jinja"], "nor a chat format"),
        (["--tools", str(tmp_path / "none.json")], "cannot be read"),
    ):
        done = CliRunner().invoke(group, ["chat", "-m", str(path), *options], input="hey\n")
        assert isinstance(done.exception, SisError)
        assert message in str(done.exception)
    assert not (tmp_path / "chats").exists()


def test_ctrl_c_stops_the_reply_and_not_the_program(path: Path, tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "sis_core", "chat", "-m", str(path), "--logit-bias", "257=-inf"]
    environment = os.environ | {"SIS_STATE": str(tmp_path), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    child = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True)
    os.close(other)
    try:
        _until(terminal, rb"/help.*\x1b\[\?2004h")
        os.write(terminal, b"hello\r")
        _until(terminal, rb"hello.*\x1b\[\?2004l.*\x1b\[\?25l.*\x1b\[2K")  # the prompt has gone, and the reply grows
        child.send_signal(signal.SIGINT)
        _until(terminal, rb"; stopped.*\x1b\[\?2004h")
        os.write(terminal, b"/stats\r")
        _until(terminal, rb"cancelled.*context: .*steps.*\x1b\[\?2004h")
        os.write(terminal, b"\x04")
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        os.close(terminal)


def _until(terminal: int, wanted: bytes, seconds: float = 60) -> None:
    """Read what is shown until it matches."""
    shown, end = b"", time.monotonic() + seconds
    while not re.search(wanted, shown, re.DOTALL):
        if not select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
            raise AssertionError(f"{wanted!r} did not come: {shown[-500:]!r}")
        new = os.read(terminal, 65536)
        shown += new
        if b"\x1b[6n" in new:  # prompt_toolkit asks where the cursor is
            os.write(terminal, b"\x1b[1;1R")


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\n\ntwo", "one\n\n"),
        ("one\ntwo", ""),
        ("\n\none", ""),
        ("```\na\n\nb", ""),
        ("```\na\n\n```\n\nb", "```\na\n\n```\n\n"),
        ("~~~~\na\n~~~\n\n", ""),
        ("a\n\n```\n\n", "a\n\n"),
        ("one\n\ntwo\n\n", "one\n\ntwo\n\n"),
    ],
)
def test_blocks_of_markdown_end_at_empty_lines_outside_code(text: str, done: str) -> None:
    assert text[: end_of_blocks(text)] == done


PARTS = ("# Ti", "tle\n\nThis is **bo", "ld**\x1b[31m [x](http://a.example)", "\n\n```py\nprint(1)\n\n", "x = 2\n```\n")
EVENTS: list[Event] = [Reasoning("Hm\n"), *map(Content, PARTS), CallStart(0, "a", "rain"), CallEnd(0, "{}")]


def test_markdown_is_drawn_once_and_control_characters_are_spelt() -> None:
    out = io.StringIO()
    with MarkdownPage(Console(file=out, width=60, force_terminal=False)) as page:
        for event in EVENTS:
            page.show(event)
    shown = out.getvalue()
    for text in ("Hm", "Title", "This is bold\\x1b[31m x (http://a.example)", "print(1)", "x = 2", "→ rain({})"):
        assert shown.count(text) == 1, text
    assert "\x1b" not in shown


def test_a_pipe_gets_the_answer_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainPage() as page:
        for event in EVENTS:
            page.show(event)
    answer = "".join(event.text for event in EVENTS if isinstance(event, Content))
    assert capsys.readouterr().out == answer + "rain({})\n"
