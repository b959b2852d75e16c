"""The filters that `sis_chat.jinja.rewrite` puts into a template, so that what they do is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jinja2.runtime import Undefined
from jinja2.utils import pass_environment

from sis_chat.jinja import rewrite
from sis_chat.jinja.filters import text_of
from sis_chat.jinja.meter import character_bytes
from sis_chat.jinja.text import cut, join

if TYPE_CHECKING:
    from sis_chat.jinja.sandbox import Sandbox


@pass_environment
def _counted(env: Sandbox, value: Any) -> Any:
    return env.counted(value)


@pass_environment
def _weighed(env: Sandbox, value: Any) -> Any:
    if not isinstance(value, str):
        env.meter.measure(value)
    return value


@pass_environment
def _made(env: Sandbox, value: Any) -> Any:
    env.meter.hold_items(len(value))
    return value


@pass_environment
def _joined(env: Sandbox, parts: Iterable[Any]) -> str:
    listed = [text_of(env, part) for part in parts]
    env.meter.hold(sum(map(len, listed)) * character_bytes(*listed))
    return join(listed)


@pass_environment
def _sliced(env: Sandbox, value: Any, start: Any, stop: Any, step: Any) -> Any:
    if isinstance(value, str):
        env.meter.hold(len(value) * character_bytes(value))
        return cut(value, start, stop, step)
    if isinstance(value, list | tuple):
        env.meter.hold_items(len(value))
    elif not isinstance(value, Undefined):
        raise TypeError(f"a {type(value).__name__} cannot be sliced")
    return value[start:stop:step]


INSERTED: Mapping[str, Callable[..., Any]] = {
    rewrite.COUNTED: _counted,
    rewrite.WEIGHED: _weighed,
    rewrite.MADE: _made,
    rewrite.JOINED: _joined,
    rewrite.SLICED: _sliced,
}
