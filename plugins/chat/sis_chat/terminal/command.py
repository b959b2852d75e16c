"""``sis chat``"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import platformdirs

from sis_chat.terminal import commands
from sis_chat.terminal.files import Drawer
from sis_chat.terminal.program import Program
from sis_chat.terminal.reading import Lines, Prompt
from sis_chat.terminal.talk import Talk
from sis_core.cli.common import load_model, model_options
from sis_core.cli.sampling import SamplingCommand, sampling_options
from sis_core.cli.streams import printable, say
from sis_core.errors import ChatError


@click.command("chat", cls=SamplingCommand)
@model_options()
@click.option("--system", metavar="TEXT", help="What the model is told first.")
@click.option("--template", metavar="NAME|FILE", help="A named chat format or a Jinja file instead of the model's own.")
@click.option("--tools", metavar="FILE", type=click.Path(path_type=Path), help="A JSON file with tools it may call.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--no-history", is_flag=True, help="Keep nothing: neither the conversation nor what was typed.")
@click.option("--prompt-cache", metavar="FOLDER", type=click.Path(file_okay=False),
              help="Keep what was read there, and find it again; see `sis cache`.")  # fmt: skip
@click.option("-n", "--max-tokens", type=click.IntRange(-1), default=-1, show_default=True,
              help="Tokens of a reply; -1: no limit.")  # fmt: skip
@sampling_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    system: str | None,
    template: str | None,
    tools: Path | None,
    go_on: bool,
    no_history: bool,
    prompt_cache: str | None,
    **options: Any,
) -> None:
    """Talk to a model. Its replies are Markdown on a terminal, and plain text in a pipe.

    Lines of standard input that is no terminal are messages, one after the other. /help shows what else can be typed.
    """
    if options["max_tokens"] < 0:
        options["max_tokens"] = None
    drawer = Drawer(Path(os.environ.get("SIS_STATE") or platformdirs.user_state_path("sis", appauthor=False)))
    last = drawer.last() if go_on else None
    if go_on and last is None:
        raise ChatError("there is no conversation yet", where="--continue", fix="start one with `sis chat`")
    if sys.stdin is None:
        raise ChatError("is closed", where="standard input", fix="talk at a terminal, or give messages as lines")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    called = [] if tools is None else commands.read_tools(tools)
    with load_model(ctx, options) as model, model.conversation(template, prompt_cache=prompt_cache) as conversation:
        given = {name: value for name, value in options.items() if value is not None}
        model.request([0], **given)  # what is wrong with an option is told before anything is typed
        talk = Talk(conversation, given, system=system, tools=called, tell=say)
        if not no_history:
            drawer.open()
        path = None if no_history else last or drawer.new()
        program = _at_terminal(talk, path, drawer) if interactive else _in_pipe(talk, path)
        if last is not None:
            program.load(last)
        if interactive:
            say(f"{model.path.name}, {conversation.n_ctx} tokens of context; /help")
        program.run()


def _in_pipe(talk: Talk, path: Path | None) -> Program:
    from sis_chat.terminal.screen import PlainPage

    return Program(talk, Lines(), PlainPage, path, interactive=False)


def _at_terminal(talk: Talk, path: Path | None, drawer: Drawer) -> Program:
    from rich.console import Console
    from rich.text import Text

    from sis_chat.terminal.screen import MarkdownPage

    console = Console()
    input = Prompt(None if path is None else drawer.typed, [f"/{name}" for name in commands.COMMANDS])
    return Program(
        talk,
        input,
        lambda: MarkdownPage(console),
        path,
        tell=lambda line: console.print(Text(printable(line), "dim")),
        interactive=True,
    )
