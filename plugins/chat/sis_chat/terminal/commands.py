"""What a person can type beside messages: a slash, a name, and what belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sis_chat.messages import checked_tools
from sis_core.chat import Tool
from sis_core.errors import ChatError, suggest

if TYPE_CHECKING:
    from sis_chat.terminal.program import Program


class Command(NamedTuple):
    """One command.

    Attributes:
        run: called with the program and the rest of the line.
    """

    usage: str
    about: str
    run: Callable[[Program, str], None]


def run(program: Program, line: str) -> None:
    """Run the command on a line; EOFError to leave, ChatError when there is no such command, or what it raises."""
    name, _, rest = line.removeprefix("/").partition(" ")
    name = SAME.get(name, name)
    if name not in COMMANDS:
        raise ChatError(
            f"there is no command /{name}{suggest(name, [*COMMANDS, *SAME])}",
            where="chat",
            fix="see /help; a message that begins with a slash is typed with two: //",
        )
    COMMANDS[name].run(program, rest.strip())


def _help(program: Program, rest: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        program.tell(f"{command.usage:{width}}  {command.about}")
    program.tell("Alt-Enter, or a backslash at the end of a line: another line. Ctrl-C: stop a reply. Ctrl-D: leave.")
    program.tell("A message that begins with a slash is typed with two: //")


def _quit(program: Program, rest: str) -> None:
    raise EOFError


def _system(program: Program, rest: str) -> None:
    if rest:
        program.talk.system = None if rest == "none" else rest
        program.keep()
    program.tell(f"system: {program.talk.system or 'none'}")


def _set(program: Program, rest: str) -> None:
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    if name:
        program.talk.set(name, value.strip() or None)
    shown = {key: value for key, value in program.talk.options.items() if value not in (None, (), [])}
    program.tell(" ".join(f"{key}={value}" for key, value in shown.items()) or "all options are the defaults")


def _retry(program: Program, rest: str) -> None:
    program.send(program.talk.undo())


def _edit(program: Program, rest: str) -> None:
    text = program.talk.undo()
    program.keep()
    if rest:
        program.send(rest)
    else:
        program.given = text


def _undo(program: Program, rest: str) -> None:
    text = program.talk.undo()
    program.keep()
    program.tell(f"forgotten: {text}")


def _save(program: Program, rest: str) -> None:
    if not rest:
        raise ChatError("name a file", where="/save")
    path = Path(rest).expanduser()
    program.write(path)
    program.tell(f"saved to {path}")


def _load(program: Program, rest: str) -> None:
    if not rest:
        raise ChatError("name a file", where="/load")
    program.load(Path(rest).expanduser())


def _tools(program: Program, rest: str) -> None:
    if rest == "none":
        program.talk.tools = []
    elif rest:
        program.talk.tools = read_tools(Path(rest).expanduser())
    names = ", ".join(tool["function"]["name"] for tool in program.talk.tools)
    program.tell(f"tools: {names or 'none'}")


def read_tools(path: Path) -> list[Tool]:
    """The tools in a JSON file; ChatError when there are none."""
    try:
        return list(checked_tools(json.loads(path.read_text("utf-8-sig"))))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ChatError(f"cannot be read: {reason}", where=str(path)) from None


def _stats(program: Program, rest: str) -> None:
    talk = program.talk
    model, stats = talk.conversation.model, talk.conversation.stats
    program.tell(f"model: {model.path.name}, backend {model.backend}; {talk.conversation.chat.describe()}")
    if (speed := talk.speed) is not None:
        usage = speed.usage
        n_new = usage.n_prompt - usage.n_cached
        program.tell(
            f"last reply: {usage.n_prompt} tokens of prompt, {usage.n_cached} of them known; {n_new} read in "
            f"{speed.prompt_seconds:.2f} s; {usage.n_generated} written, {speed.tokens_per_second:.1f} tokens/s; "
            f"ended by {speed.reason}"
        )
    program.tell(
        f"context: {len(talk.conversation.ids)} of {talk.conversation.n_ctx} tokens; "
        f"{len(talk.messages)} messages, {talk.first} of them fallen out; {stats.rows} rows in {stats.steps} steps"
    )
    for drafter, guessed in stats.guessed.items():
        program.tell(f"guessed ahead by {drafter}: {guessed.fed} tokens, {guessed.chosen} of them right")


COMMANDS = {
    "system": Command("/system [TEXT|none]", "show or change the system message", _system),
    "set": Command("/set [NAME [VALUE]]", "show options, change one (temperature 0.7), or take it back", _set),
    "retry": Command("/retry", "another reply to the last message", _retry),
    "edit": Command("/edit [TEXT]", "change the last message", _edit),
    "undo": Command("/undo", "forget the last message and its reply", _undo),
    "save": Command("/save FILE", "write the conversation to a file", _save),
    "load": Command("/load FILE", "go on with the conversation in a file", _load),
    "tools": Command(
        "/tools [FILE|none]", "show or change what the model may call: JSON, as chat APIs have it", _tools
    ),
    "stats": Command("/stats", "speeds, and how full the context is", _stats),
    "help": Command("/help", "this", _help),
    "quit": Command("/quit", "leave; /exit and /bye do too", _quit),
}
SAME = {"exit": "quit", "bye": "quit"}  # what people type who come from other programs
