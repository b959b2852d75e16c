"""What reaches a person: one place for each stream. What comes from outside is shown, never obeyed.

Names in files, errors of plugins and what a model says may hold escape sequences that paint a terminal, or line breaks
that fake a message.
"""

from __future__ import annotations

import logging
import sys

import click


def printable(text: str) -> str:
    """The text on one line, with control characters spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """A message of ours, on standard error."""
    click.echo(printable(text), err=True)


class OneLine(logging.Formatter):
    """A log record on one line; a traceback, which only -vv shows, on those after it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def write_text(text: str) -> None:
    """Generated text at once: as it is in a pipe, with control characters spelt out on a terminal."""
    if sys.stdout.isatty():
        text = "".join(c if c in "\n\t" or c.isprintable() else printable(c) for c in text)
    sys.stdout.write(text)  # click would strip what looks like colours
    sys.stdout.flush()
