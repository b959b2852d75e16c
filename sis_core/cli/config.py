"""Defaults that a person keeps in a file, so that they need not be typed.

```toml
model = "qwen3-0.6b"     # for every command that has the option
threads = 4

[generate]               # for one command
temperature = 0.7
```
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click

from sis_core.errors import SisError


def config_path() -> Path:
    """The file: what SIS_CONFIG names, or ``config.toml`` in the folder that the system has for such files."""
    return Path(os.environ.get("SIS_CONFIG") or Path(click.get_app_dir("sis")) / "config.toml")


def defaults_for(command: click.Command, name: str, ctx: click.Context) -> dict[str, Any]:
    """The defaults of a command's parameters, by their names for click; empty where there is no file.

    Raises:
        SisError: the file is no TOML, SIS_CONFIG names one that is not there, or the file names an option for this
            command that it does not have.
    """
    path = config_path()
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        if os.environ.get("SIS_CONFIG"):
            raise SisError(
                "there is no such file", where=f"SIS_CONFIG={path}", fix="name a file, or unset it"
            ) from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SisError(f"cannot be read: {error}", where=str(path), fix="mend it, or remove it") from None
    own = values.get(name, {})
    if not isinstance(own, dict):
        raise SisError(f"{name} is the name of a command, not of an option", where=str(path), fix=f"write [{name}]")
    names = {
        spelt.removeprefix("--"): param.name
        for param in command.get_params(ctx)
        for spelt in param.opts
        if spelt.startswith("--")
    }
    for key in own:
        if key not in names:
            raise SisError(f"sis {name} has no option --{key}", where=f"{path}: [{name}]", fix=f"`sis {name} --help`")
    general = {key: value for key, value in values.items() if not isinstance(value, dict) and key in names}
    return {str(names[key]): value for key, value in (general | own).items()}
