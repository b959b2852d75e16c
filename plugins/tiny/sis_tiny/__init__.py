"""The built-in model: a small story teller that is used when no model is named. How it was made: see the README."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.source import Source
from sis_tiny.source import TinySource


@hookimpl
def sis_register_sources() -> list[Source]:
    return [TinySource()]
