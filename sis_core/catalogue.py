"""Which package brings what, for error messages only. The facts lie in ``catalogue.toml``."""

from __future__ import annotations

import tomllib
from importlib.resources import files


def package_for(kind: str, name: str) -> str | None:
    """The distribution known to bring ``name`` of a kind (``quant_formats``, ``architectures`` …), or None."""
    table = tomllib.loads(files("sis_core").joinpath("catalogue.toml").read_text("utf-8"))
    found = table.get(kind, {}).get(name)
    return found if isinstance(found, str) else None
