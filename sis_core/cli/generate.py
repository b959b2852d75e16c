"""``sis generate``"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from sis_core.cli.common import json_line, load_model, model_options, read_input, registry_of
from sis_core.errors import SourceError
from sis_core.texts.chain_text import sampler_options
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Piece

log = logging.getLogger(__name__)


class GenerateCommand(click.Command):
    """A command whose options include those of every installed sampler."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        fixed = super().get_params(ctx)
        taken = {option for param in fixed for option in param.opts}
        return fixed[:-1] + [o for o in _sampler_params(ctx) if not taken & set(o.opts)] + fixed[-1:]


def _sampler_params(ctx: click.Context) -> list[click.Parameter]:
    params: list[click.Parameter] = []
    for spelling, name, sampler, field in sampler_options(registry_of(ctx)):
        shown = f"; default {field.default}" if isinstance(field.default, str | int | float | bool) else ""
        text = f"{sampler.name}: {field.metadata.get('help', field.name)}{shown}"
        kind = {int: click.INT, float: click.FLOAT, bool: click.BOOL}.get(field.type or str, click.STRING)
        params.append(click.Option([spelling, name], type=kind, default=None, help=text))
    return params


@click.command("generate", cls=GenerateCommand)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False), help="Read the prompt from a file.")
@model_options
@click.option("-n", "--max-tokens", type=click.IntRange(-1), default=256, show_default=True,
              help="Tokens to generate; -1: no limit.")  # fmt: skip
@click.option("--sampler", metavar="NAME", help="One sampler, with the options below; see `sis samplers`.")
@click.option("--samplers", metavar="CHAIN",
              help='A whole chain in order: "penalties;top-k=40;top-p=0.95;temperature=0.8".')  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Same seed, same text.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option("--context", type=click.Choice(["error", "shift"]), default="error", show_default=True,
              help="When the context is full: stop, or let the oldest text fall out.")  # fmt: skip
@click.option("--keep", "n_keep", type=click.IntRange(0), default=4, show_default=True,
              help="First tokens that a shift keeps.")  # fmt: skip
@click.option("--logprobs", type=click.IntRange(0, 100),
              help="With --json: also this many likeliest tokens at each place.")  # fmt: skip
@click.option("--parse-special", is_flag=True, help="Read the names of control tokens in the prompt as those tokens.")
@click.option("--ignore-end", is_flag=True, help="Go on after the model's own end token.")
@click.option("--echo/--no-echo", default=True, help="Print the prompt before its continuation.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object for each token; the last of a text says why it ended."
)
@click.pass_context
def command(
    ctx: click.Context, /, prompts: tuple[str, ...], file: str | None, echo: bool, as_json: bool, **options: Any
) -> None:
    """Continue PROMPT; several prompts are run together, one step of the model for all of them.

    Without PROMPT it is read from standard input.
    """
    if prompts and file:
        raise click.UsageError("give a prompt or --file, not both")
    texts = list(prompts) or [_read(file)]
    if options["max_tokens"] < 0:
        options["max_tokens"] = None
    with load_model(ctx, options) as model:
        if as_json:
            _print_json(model, texts, options)
        elif len(texts) == 1:
            _stream(model, texts[0], echo, options)
        else:
            answers = model.generate_batch(texts, **options)
            for text, done in zip(texts, answers, strict=True):
                click.echo(f"{text if echo else ''}{done.text}\n")
            _warn_of_guesses(any(done.degraded for done in answers))
            for error in filter(None, (done.error for done in answers)):
                raise error


def _read(file: str | None) -> str:
    if file is None:
        if sys.stdin.isatty():
            raise click.UsageError('give a prompt: sis generate "Once upon a time"')
        return read_input().removesuffix("\n")
    try:
        return Path(file).read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", where=file) from None


def _stream(model: LanguageModel, text: str, echo: bool, options: dict[str, Any]) -> None:
    request = model.request(text, **options)
    if echo:
        click.echo(text, nl=False)
        sys.stdout.flush()
    started, first, n_tokens, last = time.perf_counter(), 0.0, 0, None
    try:
        for piece in model.stream([request]):
            first = first or time.perf_counter()
            n_tokens += 1
            last = piece
            if piece:
                click.echo(piece, nl=False)
                sys.stdout.flush()
    finally:
        click.echo()
    _report(len(request.prompt), n_tokens, started, first, last)


def _report(n_prompt: int, n_tokens: int, started: float, first: float, last: Piece | None) -> None:
    """What -v prints: speeds; and the warning that is always printed when the text is not what the model would say."""
    took = time.perf_counter() - first
    if n_tokens > 1 and first > started:
        log.info("prompt: %d tokens, %.1f tokens/s", n_prompt, n_prompt / (first - started))
        log.info("decode: %d tokens, %.1f tokens/s", n_tokens - 1, (n_tokens - 1) / took)
    _warn_of_guesses(last is not None and last.degraded)


def _warn_of_guesses(degraded: bool) -> None:
    if degraded:
        log.warning("the result is degraded: see the warnings above")


def _print_json(model: LanguageModel, texts: list[str], options: dict[str, Any]) -> None:
    if options["logprobs"] is None:
        options["logprobs"] = 0
    requests = [model.request(text, **options) for text in texts]
    for piece in model.stream(requests):
        line: dict[str, Any] = {"sequence": piece.sequence, "text": str(piece)}
        line |= {"token": piece.token, "logprob": piece.logprob}
        if piece.top:
            spell = model.tokenizer.token_text
            line["top"] = [{"token": t.token, "logprob": t.logprob, "text": spell(t.token)} for t in piece.top]
        if piece.finish_reason:
            line |= {"finish_reason": piece.finish_reason, "prompt_tokens": len(requests[piece.sequence].prompt)}
            line["degraded"] = piece.degraded
        json_line(line)
        sys.stdout.flush()
