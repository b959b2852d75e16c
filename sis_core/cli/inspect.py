"""``sis inspect``"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from sis_core.cli.common import human_bytes, json_line, registry_of, table
from sis_core.cli.naming import model_named
from sis_core.cli.remote_header import RemoteHeader, remote_header
from sis_core.cli.streams import printable
from sis_core.errors import SisError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.open import network_of
from sis_core.loading.rowless import count_rowless, count_rows
from sis_core.loading.vocabulary import refusal
from sis_core.loading.weights import file_weights
from sis_core.registry import Registry
from sis_core.source import resolve
from sis_core.workbench.parameters import Parameters
from sis_core.workbench.scan import check_weights

SHOWN = 8  # items of a long array


@click.command("inspect")
@model_named(bare=True)
@click.option("--tensors/--no-tensors", default=True, help="List every tensor.")
@click.option("--check-tensors", is_flag=True, help="Read every weight and look for NaN and infinity.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(ctx: click.Context, /, model: str | None, tensors: bool, check_tensors: bool, as_json: bool) -> None:
    """Show the metadata and tensors of MODEL (default: the built-in model), also when no plugin can run it.

    Of a model that is not here, as hf://user/repo, only the header is fetched. On a bad file: one line, exit code 1.
    """
    here = model is not None and os.path.exists(model)
    registry = registry_of(ctx)
    sources = registry.sources_for(model)
    if model and not (here or check_tensors) and (header := remote_header(model, sources)):
        _show(header, registry, tensors, as_json)
        return
    with GGUFFile.open(resolve(model, sources)) as opened:
        if check_tensors:
            check_weights(file_weights(opened, registry).values(), str(opened.path))
            click.echo("every weight is finite", err=True)
        _show(opened, registry, tensors, as_json)


def _show(opened: GGUFFile | RemoteHeader, registry: Registry, tensors: bool, as_json: bool) -> None:
    refused, text_refused = _refused(opened, registry), refusal(opened.metadata, registry)
    if as_json:
        json_line(_summary(opened, tensors) | {"refused": refused, "text_refused": text_refused})
        return
    parameters = Parameters.of(opened.tensors, opened.metadata)
    total = sum(info.n_bytes for info in opened.tensors.values())
    types = Counter(info.type_name for info in opened.tensors.values())
    parts = f" in {len(opened.paths)} parts" if len(opened.paths) > 1 else ""
    sizes = f"{len(opened.tensors)} tensors, {human_bytes(total)}"
    click.echo(f"{opened.path}: GGUF version {opened.version}{parts}, {sizes}")
    click.echo("types: " + (printable(", ".join(f"{name} ×{n}" for name, n in types.most_common())) or "none"))
    click.echo(printable(f"family {opened.metadata.get('general.architecture')}: ") + str(parameters))
    if parameters.ignored:
        click.echo(f"ignored: {len(parameters.ignored)} tensors that predict more than the next token (nextn)")
    if parameters.towers:
        alone = "" if refused else "; it runs on text alone"
        click.echo(f"ignored: {len(parameters.towers)} tensors that see or hear{alone}")
    if rowless := _rowless(opened):
        click.echo(f"ignored: the last {rowless} of its tokens, which have no row in the embedding")
    if refused:
        click.echo("it will be refused: " + printable(refused))
    if text_refused:
        click.echo("its text will be refused: " + printable(text_refused))
    for info in opened.tensors.values():
        if info.package:
            click.echo(f"{info.type_name!r} is not a type of GGUF; the file says that {info.package!r} brings it")
            break
    click.echo()
    table(
        ["key", "type", "value"],
        [(key, opened.metadata_types[key], _short(value)) for key, value in opened.metadata.items()],
    )
    if tensors:
        click.echo()
        table(
            ["tensor", "shape", "type", "bytes"],
            [(i.name, " × ".join(map(str, i.shape)), i.type_name, i.n_bytes) for i in opened.tensors.values()],
        )


def _refused(opened: GGUFFile | RemoteHeader, registry: Registry) -> str | None:
    """Why a load will refuse the model; None where nothing is known against it, as of a header alone."""
    if isinstance(opened, GGUFFile):
        try:
            network_of(opened, file_weights(opened, registry), registry)
        except SisError as error:
            return error.what
    return None


def _summary(opened: GGUFFile | RemoteHeader, tensors: bool) -> dict[str, Any]:
    parameters = Parameters.of(opened.tensors, opened.metadata)
    summary: dict[str, Any] = {
        "path": str(opened.path),
        "version": opened.version,
        "parameters": {
            "total": parameters.total,
            "active": parameters.active,
            "active_bytes": parameters.active_nbytes,
            "ignored": [*parameters.ignored, *parameters.towers],
        },
        "ignored_tokens": _rowless(opened),
        "metadata": {key: _plain(value) for key, value in opened.metadata.items()},
    }
    if tensors:
        summary["tensors"] = [
            {"name": i.name, "shape": list(i.shape), "type": i.type_name, "bytes": i.n_bytes}
            for i in opened.tensors.values()
        ]
    return summary


def _rowless(opened: GGUFFile | RemoteHeader) -> int:
    """Tokens at the end that the embedding has no row for, where a model runs without them."""
    n_rows = count_rows(opened.tensors)
    return 0 if n_rows is None else count_rowless(opened.metadata, n_rows) or 0


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _short(value: Any) -> str:
    """A value on one line, with control characters made visible: the file is a stranger's."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = ", ".join(_short(item) for item in value[:SHOWN])
        return f"[{items}{', …' if len(value) > SHOWN else ''}] ({len(value):,})"
    text = _plain(value)
    if not isinstance(text, str):
        return str(text)
    return repr(text[:200] + ("…" if len(text) > 200 else ""))
