"""Options of commands, made from the records that define them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import attrs
import click

from sis_core.cli.completion import completing, names_of
from sis_core.cli.sections import COMMON, LOADING, SectionOption
from sis_core.loading.options import LoadOptions

F = TypeVar("F", bound=Callable[..., Any])
OFTEN = ("n_ctx", "n_threads")  # what people say of how a model is loaded; the rest has a section of its own in helps


class NumberOrWord(click.IntRange):
    """A whole number, or a word that stands for one."""

    def __init__(self, least: int | None, words: Sequence[str]) -> None:
        super().__init__(least)
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in self._words else super().convert(value, param, ctx)


def click_option(field: attrs.Attribute[Any], *, default: Any = None, **changes: Any) -> Callable[[F], F]:
    """The click option of a field that `sis_core.loading.options.option` made."""
    about = field.metadata
    if field.default == ():
        changes = {"multiple": True} | changes
    is_flag = field.type in ("bool", "bool | None", bool)
    spelt = [about["flag"]] if is_flag else about["flag"].split("/")
    values: dict[str, Any] = {"default": field.default if default is None else default, "help": about["help"]}
    if is_flag:
        values["is_flag"] = True
    elif about["choices"]:
        values["type"] = click.Choice(about["choices"])
    elif about["words"]:
        values |= {"type": NumberOrWord(about["least"], about["words"]), "metavar": about["metavar"]}
    elif about["least"] is not None:
        values["type"] = click.IntRange(about["least"])
    else:
        values["metavar"] = about["metavar"]
        if about["names"]:
            values["shell_complete"] = completing(names_of(about["names"]))
    values |= {"cls": SectionOption, "section": COMMON if field.name in OFTEN else LOADING}
    values["show_default"] = not is_flag and values["default"] not in (None, ())
    return click.option(*spelt, field.name, **(values | changes))


def load_options(names: Iterable[str] | None = None, **changes: dict[str, Any]) -> Callable[[F], F]:
    """Add the options that say how a model is loaded: all that have a flag, or those named.

    ``changes`` are arguments of click's for single options.
    """
    wanted = None if names is None else set(names)
    fields = [f for f in attrs.fields(LoadOptions) if f.metadata["flag"] and (wanted is None or f.name in wanted)]

    def add(function: F) -> F:
        for field in reversed(fields):
            function = click_option(field, **changes.get(field.name, {}))(function)
        return function

    return add


def take_load_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that say how a model is loaded, taken out."""
    return {f.name: options.pop(f.name) for f in attrs.fields(LoadOptions) if f.name in options}
