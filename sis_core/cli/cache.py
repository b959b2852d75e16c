"""``sis cache``"""

from __future__ import annotations

import time

import click

from sis_core.cli.common import human_bytes, json_line, table
from sis_core.texts.prompt_cache import PromptCache


@click.command("cache")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--empty", is_flag=True, help="Delete all of it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(folder: str, empty: bool, as_json: bool) -> None:
    """Show what the prompt cache in FOLDER (--prompt-cache) holds, the most recently used first."""
    cache = PromptCache(folder)
    if empty:
        click.echo(f"{cache.empty()} deleted")
        return
    rows = []
    for kept in cache.list():
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.used))
        if as_json:
            json_line({"model": kept.model, "tokens": kept.n_tokens, "bytes": kept.n_bytes, "used": kept.used})
        rows.append([kept.model, kept.n_tokens, human_bytes(kept.n_bytes), used])
    if not as_json:
        table(["model", "tokens", "size", "last used"], rows)
