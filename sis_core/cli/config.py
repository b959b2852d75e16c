"""Defaults that a person keeps in a file, so that they need not be typed.

```toml
model = "qwen3-0.6b"     # for every command that has the option
threads = 4

[generate]               # for one command
temperature = 0.7
```
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from sis_core.errors import SisError, suggest
from sis_core.loading.options import LoadOptions

log = logging.getLogger(__name__)


def config_path() -> Path:
    """The file: what SIS_CONFIG names, or ``config.toml`` in the folder that the system has for such files."""
    return Path(os.environ.get("SIS_CONFIG") or Path(click.get_app_dir("sis")) / "config.toml")


def defaults_for(command: click.Command, name: str, ctx: click.Context) -> dict[str, Any]:
    """The defaults of a command's parameters, by their names for click; empty where there is no file.

    Raises:
        SisError: the file is no TOML, SIS_CONFIG names one that is not there, or the file names an option that this
            command, or for all commands one that no command has, or a command that there is not.
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
    names = _names(command, ctx)
    for key in own:
        if key not in names:
            raise SisError(f"sis {name} has no option --{key}", where=f"{path}: [{name}]", fix=f"`sis {name} --help`")
    _check_others(values, names, str(path), ctx)
    general = {key: value for key, value in values.items() if not isinstance(value, dict) and key in names}
    return {str(names[key]): value for key, value in (general | own).items()}


def _names(command: click.Command, ctx: click.Context) -> dict[str, str | None]:
    """A command's long options, and its parameters by these."""
    return {
        spelt.removeprefix("--"): param.name
        for param in command.get_params(ctx)
        for spelt in param.opts
        if spelt.startswith("--")
    }


def _check_others(values: dict[str, Any], names: Mapping[str, object], where: str, ctx: click.Context) -> None:
    """SisError for what no command has, so that a slip changes nothing in silence.

    The other commands are imported only for an option that neither this command has nor all that load a model; one
    that cannot be asked may have it.
    """
    group = ctx.command
    assert isinstance(group, click.Group)
    commands = group.list_commands(ctx)
    for key, value in values.items():
        if isinstance(value, dict) and key not in commands:
            raise SisError(f"there is no command {key!r}{suggest(key, commands)}", where=where, fix="`sis --help`")
    usual = {"model", *(field.metadata["flag"] or "" for field in attrs.fields(LoadOptions))}
    shared = {name.removeprefix("--") for flags in usual for name in flags.split("/")}
    left = [key for key, value in values.items() if not isinstance(value, dict) and key not in {*names, *shared}]
    if left:
        try:
            others = [command for name in commands if (command := group.get_command(ctx, name)) is not None]
            known = {option for command in others for option in _names(command, ctx)}
        except Exception as error:  # a plugin's, which is no reason to refuse a key that may be its own
            log.debug("%s: options are not checked: %s", where, error)
            return
        if unknown := [key for key in left if key not in known]:
            what = f"no command has an option --{unknown[0]}{suggest(unknown[0], sorted(known))}"
            raise SisError(what, where=where, fix="mend it, or remove it")
