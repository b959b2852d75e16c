"""``sis render``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sis_chat.options import checked_options
from sis_core.chat import Rendered, Segment
from sis_core.cli.common import json_line, read_input, registry_of, table
from sis_core.cli.streams import printable
from sis_core.errors import ChatError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.source import resolve
from sis_core.texts.chat_format import open_chat
from sis_core.tokenizer import Tokenizer


class _Opened:
    """A file without its network: what a chat needs of a model."""

    def __init__(self, file: GGUFFile, registry: Registry) -> None:
        self.path, self.metadata, self.registry = file.path, file.metadata, registry
        self.tokenizer: Tokenizer = build_tokenizer(file, registry)


@click.command("render")
@click.argument("messages", required=False, metavar="[MESSAGES.json]")
@click.option("-m", "--model", metavar="FILE", help="A GGUF file or a source's name; default: the built-in model.")
@click.option("--template", metavar="NAME|FILE", help="A named chat format or a Jinja file instead of the model's own.")
@click.option("--tools", metavar="FILE", help="A JSON file with a list of tools.")
@click.option("-o", "--option", "options", multiple=True, metavar="NAME=JSON", help="An option of the template's own.")
@click.option("--continue-last", is_flag=True, help="Go on with the last message, an assistant's.")
@click.option("--ids", is_flag=True, help="Print the token ids alone, on one line.")
@click.option("--segments", is_flag=True, help="Print a row for each part: whose it is, its ids, its text.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    messages: str | None,
    model: str | None,
    template: str | None,
    tools: str | None,
    options: tuple[str, ...],
    continue_last: bool,
    ids: bool,
    segments: bool,
    as_json: bool,
) -> None:
    """Print what a model reads for a list of messages: {"role", "content"} objects in JSON (or from standard input).

    MESSAGES.json may also be an object with "messages" and "tools", as chat APIs have it.
    """
    registry = registry_of(ctx)
    given: Any = _json(messages) if messages is not None else _parsed(read_input(), "standard input")
    listed: Any
    called: Any
    listed, called = (given.get("messages"), given.get("tools") or []) if isinstance(given, dict) else (given, [])
    if tools is not None:
        called = _json(tools)
    with GGUFFile.open(resolve(model, registry.sources_for(model))) as file:
        opened: Any = _Opened(file, registry)
        chat = open_chat(opened, template)
        own = checked_options(_options(options)) | ({"continue_last": True} if continue_last else {})
        rendered = chat.render(listed, called, **own)
        if as_json:
            json_line(_object(rendered))
        elif ids:
            click.echo(" ".join(map(str, rendered.tokens)))
        elif segments:
            table(["from", "ids", "text"], [_row(segment) for segment in rendered.segments])
        else:
            click.echo("\n".join(map(printable, rendered.text.split("\n"))))


def _row(segment: Segment) -> tuple[str, str, str]:
    source = "template" if segment.message is None else f"message {segment.message}"
    return source, " ".join(map(str, segment.tokens)), repr(segment.text)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ChatError(f"cannot be read: {reason}", where=printable(path)) from None


def _json(path: str) -> Any:
    return _parsed(_text(path), path)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatError(f"is not JSON: {error}", where=printable(where)) from None


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Options from NAME=VALUE; what is not JSON is a text."""
    made: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ChatError(f"{pair!r} is not NAME=VALUE", where="--option")
        try:
            made[name] = json.loads(value)
        except ValueError:
            made[name] = value
    return made


def _object(rendered: Rendered) -> dict[str, Any]:
    return {
        "text": rendered.text,
        "tokens": list(rendered.tokens),
        "segments": [{"message": s.message, "text": s.text, "tokens": list(s.tokens)} for s in rendered.segments],
        "stop": list(rendered.stop),
    }
