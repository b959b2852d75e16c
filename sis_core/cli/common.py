"""What several commands share: the registry, the options of a model, and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from sis_core.cli.main import prefer_pairs
from sis_core.cli.naming import model_named
from sis_core.cli.options import load_options, take_load_options
from sis_core.cli.progress import progress_bar
from sis_core.cli.streams import printable
from sis_core.errors import SourceError
from sis_core.loading.options import LoadOptions
from sis_core.loading.recipe import Recipe
from sis_core.registry import Registry
from sis_core.source import preset_for, resolve
from sis_core.texts.language_model import LanguageModel, load

F = TypeVar("F", bound=Callable[..., Any])


def model_options(*, bare: bool = False) -> Callable[[F], F]:
    """Add the options that say which model to load and how; with ``bare`` the model may stand without ``-m``."""
    return lambda function: model_named(bare=bare)(load_options()(function))


def registry_of(ctx: click.Context, *, keep_broken: bool = False) -> Registry:
    """The program's registry, made when first needed; with ``keep_broken`` it lists a broken file of --plugin."""
    root = ctx.find_root()
    obj = root.ensure_object(dict)
    if "registry" not in obj:  # a plugin's command is looked up before the group itself has run: read its parameters
        params = root.params
        obj["registry"] = Registry.load(
            files=params.get("plugins", ()), prefer=prefer_pairs(params.get("prefer", ())), keep_broken=keep_broken
        )
    registry: Registry = obj["registry"]
    return registry


def model_path(ctx: click.Context, model: str | None) -> Path:
    """The local file of a model, with a bar where a source fetches it first."""
    with progress_bar() as update:
        return resolve(model, registry_of(ctx).sources_for(model), partial(update, "fetching"))


def load_model(ctx: click.Context, options: dict[str, Any]) -> LanguageModel:
    """Load the model that the options of `model_options` describe, taking them out of ``options``."""
    chosen = take_load_options(options)
    reference, registry = options.pop("model"), registry_of(ctx)
    path = model_path(ctx, reference)
    preset = preset_for(reference, registry.sources_for(reference))
    with progress_bar() as update:
        packing = partial(update, "packing")
        return load(path, preset=preset, registry=registry, progress=packing, **chosen)


def recipe_of(ctx: click.Context, options: dict[str, Any]) -> Recipe:
    """The same for other machines: nothing is loaded here."""
    chosen = take_load_options(options)
    reference, registry = options.pop("model"), registry_of(ctx)
    preset = preset_for(reference, registry.sources_for(reference))
    return Recipe.of(model_path(ctx, reference), LoadOptions(**chosen), preset, registry)


def read_input() -> str:
    """Standard input as UTF-8; SourceError when it is something else, or closed."""
    if sys.stdin is None:
        raise SourceError("is closed", where="standard input", fix="give a text, or a file")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8: {error.reason} at byte {error.start}", where="standard input") from None


def read_text(path: str) -> str:
    """A text file in UTF-8, without a byte order mark; SourceError when it cannot be read."""
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"cannot be read: {reason}", where=path, fix="give a text file in UTF-8") from None


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: aligned and fitted to the window on a terminal, tabs between cells when piped."""
    listed = [[printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(headers), *listed]:
            click.echo("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(*headers, box=SIMPLE_HEAD, pad_edge=False)
    for row in listed:
        drawn.add_row(*map(escape, row))
    Console().print(drawn)


def json_line(value: object) -> None:
    """Print one JSON object on a line of its own, in UTF-8 whatever the locale; numbers that JSON lacks become null."""
    data = json.dumps(_finite(value), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def human_bytes(n: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{n / 2**30:,.2f} GiB" if n >= 2**30 else f"{n / 2**20:,.1f} MiB"
