"""``sis generate``"""

from __future__ import annotations

import logging
import os
import re
import select
import stat
import sys
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from sis_core.cli.common import load_model, model_options, read_input, read_text
from sis_core.cli.naming import check_text
from sis_core.cli.printing import print_json, print_text, print_texts
from sis_core.cli.sampling import SamplingCommand, sampling_options
from sis_core.cli.sections import SectionOption
from sis_core.texts.prompt_cache import PromptCache

log = logging.getLogger(__name__)
ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
rarely = partial(click.option, cls=SectionOption, section="The text")


@click.command("generate", cls=SamplingCommand)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False), help="Read the prompt from a file.")
@model_options()
@click.option("-n", "--max-tokens", type=click.IntRange(-1), default=256, show_default=True,
              help="Tokens to generate; -1: no limit.")  # fmt: skip
@sampling_options
@click.option("--stop", multiple=True, metavar="TEXT",
              help="End before this text or control token; may be given several times.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="One JSON object for each token; the last of a text says why it ended.")  # fmt: skip
@rarely("--keep", "n_keep", type=click.IntRange(0), default=4, show_default=True,
        help="First tokens that a shift keeps.")  # fmt: skip
@rarely("--logprobs", type=click.IntRange(0, 100),
        help="With --json: also this many likeliest tokens at each place.")  # fmt: skip
@rarely("--prompt-cache", metavar="FOLDER", type=click.Path(file_okay=False),
        help="Keep what was read there, and find it again; see `sis cache`.")  # fmt: skip
@rarely("--parse-special", is_flag=True, help="Read the names of control tokens in the prompt as those tokens.")
@rarely("--ignore-end", is_flag=True, help="Go on after the model's own end token.")
@rarely("--echo/--no-echo", default=True, help="Print the prompt before its continuation.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    prompts: tuple[str, ...],
    file: str | None,
    prompt_cache: str | None,
    echo: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue PROMPT; without it, or for the PROMPT -, what comes from standard input. Several are run together."""
    texts = _texts(prompts, file)
    _refuse_useless(ctx, options, as_json)
    options["stop"] = [unescaped(stop) for stop in options["stop"]]
    if options["max_tokens"] < 0:
        options["max_tokens"] = None
    if as_json and options["logprobs"] is None:
        options["logprobs"] = 0
    cache = None if prompt_cache is None else PromptCache(prompt_cache)
    with load_model(ctx, options) as model:
        requests = [model.request(text, **options) for text in texts]
        for request in requests:
            log.info("seed %d, backend %s", request.seed, model.backend)
        if as_json:
            print_json(model, requests, cache)
        elif len(texts) == 1:
            print_text(model, requests[0], texts[0] if echo else "", cache)
        else:
            print_texts(model, requests, texts if echo else [""] * len(texts), cache)


def _texts(prompts: tuple[str, ...], file: str | None) -> list[str]:
    if prompts and file:
        raise click.UsageError("give a prompt or --file, not both")
    for prompt in prompts:
        check_text(prompt, "sis generate")
    if prompts.count("-") > 1:
        raise click.UsageError("standard input can be read once: give one prompt -")
    if prompts:
        if "-" not in prompts and _is_piped_into():
            raise click.UsageError("there is a prompt, and text on standard input too: name that with a -")
        return [_standard_input() if prompt == "-" else prompt for prompt in prompts]
    if file is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError('give a prompt: sis generate "Once upon a time"')
        return [_standard_input()]
    return [read_text(file).removesuffix("\n")]


def _standard_input() -> str:
    return read_input().removesuffix("\n")


def _is_piped_into() -> bool:
    """Whether somebody's output waits on standard input; what merely is no terminal (a service) does not count."""
    try:
        number = sys.stdin.fileno()
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            return False
        ready, _, _ = select.select([number], [], [], 0)
        return bool(ready) and bool(sys.stdin.buffer.peek(1))  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # closed, or a system that cannot tell
        return False


def _refuse_useless(ctx: click.Context, options: dict[str, Any], as_json: bool) -> None:
    """A UsageError for an option that would change nothing."""
    if options["logprobs"] is not None and not as_json:
        raise click.UsageError("--logprobs shows nothing without --json")
    kept = ctx.get_parameter_source("n_keep") is ParameterSource.COMMANDLINE
    if kept and options["context"] != "shift":
        raise click.UsageError("--keep changes nothing without --context shift")


def unescaped(text: str) -> str:
    r"""A text in which ``\n``, ``\t``, ``\\``, ``\xHH`` and ``\uHHHH`` stand for what they name."""
    return ESCAPE.sub(lambda match: match[0].encode("ascii").decode("unicode_escape"), text)
