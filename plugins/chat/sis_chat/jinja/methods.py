"""The methods and attributes of values that a template may use. Those of strings: `sis_chat.jinja.strings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from jinja2.runtime import LoopContext
from jinja2.utils import Cycler

from sis_chat.jinja import strings
from sis_chat.jinja.meter import Meter


class GivenList(list[Any]):
    """A list that the caller gave. A template may append to lists of its own only."""


@frozen
class Method:
    """A method of a value, as a template gets it."""

    function: Callable[..., Any]
    meter: Meter
    value: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.meter, self.value, *args, **kwargs)


def _append(meter: Meter, value: list[Any], item: Any) -> None:
    meter.hold_items(1)
    value.append(item)


def _pop(meter: Meter, value: list[Any], index: int = -1) -> Any:
    meter.spend(1 + len(value) // 64)
    return value.pop(index)


def _index(meter: Meter, value: Any, item: Any) -> int:
    meter.measure(value)
    meter.measure(item)
    index: int = value.index(item)
    return index


def _count(meter: Meter, value: Any, item: Any) -> int:
    meter.measure(value)
    meter.measure(item)
    count: int = value.count(item)
    return count


def _get(meter: Meter, value: Mapping[Any, Any], key: Any, default: Any = None) -> Any:
    meter.measure(key)
    return value.get(key, default)


def _copy(meter: Meter, value: Any) -> Any:
    meter.hold_items(len(value))
    return dict(value) if isinstance(value, dict) else list(value)


_SEQUENCE: Mapping[str, Callable[..., Any]] = {"index": _index, "count": _count}
_LIST: Mapping[str, Callable[..., Any]] = {**_SEQUENCE, "copy": _copy}
_OWN_LIST: Mapping[str, Callable[..., Any]] = {**_LIST, "append": _append, "pop": _pop}
_DICT: Mapping[str, Callable[..., Any]] = {
    "get": _get,
    "copy": _copy,
    "items": lambda meter, value: value.items(),
    "keys": lambda meter, value: value.keys(),
    "values": lambda meter, value: value.values(),
}
_LOOP = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "depth0",
     "cycle", "changed")
)  # fmt: skip
ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (LoopContext, _LOOP),
    (Cycler, frozenset({"next", "reset", "current"})),
)


def methods_of(value: Any) -> Mapping[str, Callable[..., Any]]:
    if isinstance(value, str):
        return strings.METHODS
    if isinstance(value, dict):
        return _DICT
    if type(value) is list:
        return _OWN_LIST
    if isinstance(value, list):
        return _LIST
    return _SEQUENCE if isinstance(value, tuple) else {}
