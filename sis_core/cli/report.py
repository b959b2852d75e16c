"""Results as a table for people, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sis_core.cli.common import json_line, table

FORMATS = ("table", "md", "csv", "json")
Row = Mapping[str, Any]


def cell(value: object) -> str:
    """A value as people read it: four significant digits, a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table; columns whose values are all numbers are set to the right."""
    numeric = [all(isinstance(row[c], int | float | None) for row in rows) for c in columns]
    lines = [columns, ["---:" if right else "---" for right in numeric]]
    lines += [[cell(row[c]).replace("|", "\\|") for c in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comma_separated(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """CSV with a line of headers and full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def emit(form: str, columns: Sequence[str], rows: Sequence[Row], extra: Mapping[str, Any] | None = None) -> None:
    """Print rows in one of `FORMATS`; JSON is one object with ``rows`` and whatever is ``extra``."""
    if form == "json":
        json_line({**(extra or {}), "rows": [dict(row) for row in rows]})
    elif form == "csv":
        click.echo(comma_separated(columns, rows), nl=False)
    elif form == "md":
        click.echo(markdown(columns, rows), nl=False)
    else:
        table(list(columns), [[cell(row[c]) for c in columns] for row in rows])
