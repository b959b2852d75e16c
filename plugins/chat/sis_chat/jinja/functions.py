"""The functions that a template may call: Jinja's own that are harmless, and those that transformers adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace, pass_environment

from sis_chat.jinja.filters import text_of

if TYPE_CHECKING:
    from sis_chat.jinja.sandbox import Sandbox

MAX_TIME_FORMAT = 200
MAX_MESSAGE = 1000


class RaisedError(JinjaError):
    """The template called ``raise_exception``: it says what is wrong with the messages."""


class Names(Namespace):
    """Jinja's ``namespace()``, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            Names._check(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        Names._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a namespace cannot have the name {name!r}")


@pass_environment
def raise_exception(env: Sandbox, message: Any = "") -> None:
    raise RaisedError(text_of(env, message)[:MAX_MESSAGE])


def strftime_now(format: str) -> str:
    """The time now. A width, which some C libraries obey, is refused."""
    if len(format) > MAX_TIME_FORMAT or any(
        format[i - 1] == "%" and format[i].isdigit() for i in range(1, len(format))
    ):
        raise SecurityError("so long a format of the time is not allowed")
    return datetime.now().strftime(str(format))


@pass_environment
def dict_(env: Sandbox, /, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Python's ``dict()``, with keys that cost what it takes to hash them."""
    entries = [arg if isinstance(arg, dict) else list(env.counted(arg)) for arg in args]
    for listed in entries:
        env.meter.hold_items(len(listed))
        env.meter.measure(listed)
    return dict(*entries, **kwargs)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "range": safe_range,
    "dict": dict_,
    "namespace": Names,
    "cycler": Cycler,
    "joiner": Joiner,
    "raise_exception": raise_exception,
    "strftime_now": strftime_now,
}
