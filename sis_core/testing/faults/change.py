"""A network with something in it changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve, frozen, has
from attrs import fields as attrs_fields

from sis_core.block import Network
from sis_core.quant import Weight

T = TypeVar("T")


@frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        words: go on after "a backend that".
        spoil: returns the same network where it has nothing to spoil.
        whole_text: right only for a step that is a whole text: see `WholeText`.
    """

    words: str
    spoil: Callable[[Network], Network]
    whole_text: bool = False


def change(record: T, kind: type[Any], how: Callable[[Any], Any]) -> T:
    """``record`` with every record of a kind inside it replaced; itself where nothing changes."""
    found: Any = record
    if isinstance(record, tuple):
        parts = tuple(change(part, kind, how) for part in record)
        found = record if all(a is b for a, b in zip(parts, record, strict=True)) else parts
    else:
        old = _fields_of(record)
        new = {name: change(value, kind, how) for name, value in old.items()}
        if any(new[name] is not old[name] for name in old):
            found = evolve(found, **new)
    return how(found) if isinstance(found, kind) else found  # type: ignore[no-any-return]


def _fields_of(record: Any) -> dict[str, Any]:
    """What a record holds, by field; nothing for a weight, and for what is no record."""
    fields = () if isinstance(record, Weight) or not has(type(record)) else attrs_fields(type(record))
    return {field.name: getattr(record, field.name) for field in fields}


def every(kind: type[Any], how: Callable[[Any], Any]) -> Callable[[Network], Network]:
    """Change every record of a kind."""
    return lambda network: change(network, kind, how)


def setting(kind: type[Any], /, **values: Any) -> Callable[[Network], Network]:
    """Give fields of a kind other values, where they are not those already."""

    def how(record: Any) -> Any:
        same = all(getattr(record, name) == value for name, value in values.items())
        return record if same else evolve(record, **values)

    return every(kind, how)
