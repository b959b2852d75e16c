"""From templates to files."""

from __future__ import annotations

import shutil
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import attrs

from sis_core.errors import PluginError
from sis_core.workbench.scaffold.names import Names

KINDS = ("quant", "sampler", "drafter", "backend", "architecture", "tokenizer", "source", "chat-format", "command")
SUFFIX = ".txt"  # templates are not Python yet
PLACEHOLDER = "module"


def write_plugin(kind: str, names: Names, folder: Path) -> list[Path]:
    """Write a plugin of one of `KINDS` into ``folder``, which must not exist; the paths of its files.

    Raises:
        PluginError: the folder exists, or cannot be written; then nothing is left of it.
    """
    values = attrs.asdict(names) | {"requires": f"sis-core~={_series()}.0"}
    files = {
        folder / path.replace(PLACEHOLDER, names.module): Template(text).substitute(values)
        for part in ("common", kind)
        for path, text in _templates(resources.files(__package__) / "templates" / part)
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise PluginError(
            "exists already", where=str(folder), fix="choose another name, or another place with --into DIR"
        ) from None
    except OSError as error:
        raise PluginError(f"cannot be made: {error}", where=str(folder), fix="choose a place with --into DIR") from None
    try:
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PluginError(f"cannot be written: {error}", where=str(folder), fix="make room on the disk") from None
    return sorted(files)


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    """Paths, without their suffix, and texts of the templates under a folder."""
    found = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            found += _templates(item, f"{prefix}{item.name}/")
        elif item.name.endswith(SUFFIX):
            found.append((prefix + item.name.removesuffix(SUFFIX), item.read_text("utf-8")))
    return found


def _series() -> str:
    """The part of our version that a contract lasts for: ``X.Y``."""
    return ".".join(metadata.version("sis-core").split(".")[:2])
