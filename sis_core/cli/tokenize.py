"""``sis tokenize``"""

from __future__ import annotations

import re

import click

from sis_core.cli.common import json_line, model_path, read_input, registry_of, table
from sis_core.cli.naming import check_text, model_named
from sis_core.errors import TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.tokenizer import Tokenizer


@click.command("tokenize")
@click.argument("text", required=False)
@model_named()
@click.option("-d", "--detokenize", is_flag=True, help="TEXT is token ids, with spaces or commas; print their text.")
@click.option("--ids", is_flag=True, help="Print the ids alone, on one line.")
@click.option("--count", is_flag=True, help="Print only how many tokens there are.")
@click.option("--special/--no-special", default=True, help="Add what the model wants at the beginning and end.")
@click.option("--parse-special", is_flag=True, help="Read the names of control tokens in TEXT as those tokens.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    text: str | None,
    model: str | None,
    detokenize: bool,
    ids: bool,
    count: bool,
    special: bool,
    parse_special: bool,
    as_json: bool,
) -> None:
    """Turn TEXT into token ids (from standard input when it is not given), or ids into text."""
    registry = registry_of(ctx)
    if text is None or text == "-":
        text = read_input()
    else:
        check_text(text, "sis tokenize")
    with GGUFFile.open(model_path(ctx, model)) as file:
        tokenizer: Tokenizer = build_tokenizer(file, registry)
        if detokenize:
            click.echo(tokenizer.decode(_ids(text), skip_special=False))
            return
        tokens = tokenizer.encode(text, add_special=special, parse_special=parse_special)
        spelt = [tokenizer.token_text(token) for token in tokens]
    if as_json:
        json_line({"tokens": tokens, "pieces": spelt})
    elif count:
        click.echo(len(tokens))
    elif ids:
        click.echo(" ".join(map(str, tokens)))
    else:
        table(["id", "token"], zip(tokens, (repr(piece) for piece in spelt), strict=True))


def _ids(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    for word in words:
        if not re.fullmatch(r"-?[0-9]{1,18}", word):
            raise TokenizerError(f"{word!r} is not a token id", where="--detokenize", fix="give whole numbers")
    return list(map(int, words))
