"""Records with options as people write them: ``name``, ``name=value``, or ``name:field=value,field=value``."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import attrs
from attrs import frozen

from sis_core.errors import FOREIGN, SamplerError, SisError, suggest
from sis_core.registry import Registry

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@frozen
class Naming:
    """One kind of class whose attrs fields are options.

    Attributes:
        kind: the registry's name of it.
        noun: what people call one.
        error: what is raised when something is wrong.
        fix: how it is written.
    """

    kind: str
    noun: str
    error: type[SisError]
    fix: str

    def item(self, registry: Registry, text: str, where: str, fix: str = "") -> tuple[type[Any], dict[str, Any]]:
        """The class that ``text`` names, and the values of its fields.

        PluginError when no plugin has it; ``self.error`` for what cannot be read, with ``fix``.
        """
        match = re.fullmatch(r"\s*([^\s:=,;]+)\s*(?:([:=])(.*))?", text, re.DOTALL)
        if match is None:
            what = f"{text.strip()!r} is not a {self.noun}" if text.strip() else "is empty"
            raise self.error(what, where=where, fix=fix or self.fix)
        name, separator, rest = match.groups()
        cls: type[Any] = registry.get(self.kind, name, where=where)
        fields = fields_of(cls)
        if separator is None:
            return cls, {}
        if not fields:
            raise self.error(f"{cls.name} takes no value", where=where)
        if separator == "=":
            return cls, {fields[0].name: self._value(cls, fields[0], rest.strip(), where)}
        found: dict[str, Any] = {}
        for part in rest.split(","):
            key, equals, value = part.partition("=")
            field = _field(cls, key.strip())
            if field is None or not equals:
                known = [f.name for f in fields]
                given = part.strip() if not equals else key.strip()
                what = f"{given!r} is not field=value" if not equals else f"{cls.name} has no field {given!r}"
                hint = suggest(spelt(given), known) if equals else ""
                raise self.error(what + hint, where=where, fix=f"its fields are: {', '.join(known)}")
            if field.name in found:
                raise self.error(f"{field.name} is given twice", where=where)
            found[field.name] = self._value(cls, field, value.strip(), where)
        return cls, found

    def build(self, cls: type[Any], values: dict[str, Any]) -> Any:
        """An instance with these values; whatever the class raises is told as ours."""
        where = f"{self.noun} {cls.name}"
        missing = [f.name for f in fields_of(cls) if f.default is attrs.NOTHING and f.name not in values]
        if missing:
            raise self.error(f"needs a value for {missing[0]}", where=where)
        aliases = {field.name: field.alias or field.name for field in fields_of(cls)}
        try:
            return cls(**{aliases[name]: value for name, value in values.items()})
        except SamplerError as error:  # of an option, which does not know whose it is
            raise self.error(error.what, where=where, fix=error.fix) from None
        except SisError:
            raise
        except FOREIGN as error:  # a stranger's validator
            raise self.error(f"{type(error).__name__}: {error}", where=where) from error

    def _value(self, cls: type[Any], field: attrs.Attribute[Any], text: str, where: str) -> Any:
        """The value that ``text`` spells for a field of type int, float or bool; other types read text themselves."""
        try:
            if field.type is bool:
                return _WORDS[text.lower()]
            return int(text) if field.type is int else float(text) if field.type is float else text
        except (ValueError, KeyError):
            rule = field.metadata.get("rule", getattr(field.type, "__name__", "another value"))
            raise self.error(f"{field.name} of {cls.name} is {text!r}, but must be {rule}", where=where) from None


def fields_of(cls: type[Any]) -> list[attrs.Attribute[Any]]:
    """The fields that are options, with their types as classes where they can be resolved."""
    if not attrs.has(cls):
        return []
    with contextlib.suppress(NameError):  # a type that only a type checker sees
        attrs.resolve_types(cls)
    return [field for field in attrs.fields(cls) if field.init and not field.name.startswith("_")]


def spelt(name: str) -> str:
    """A name as Python spells it."""
    return name.replace("-", "_")


def _field(cls: type[Any], key: str) -> attrs.Attribute[Any] | None:
    """The field that ``key`` names, in full or without the class's own name before it."""
    names = (spelt(key), f"{spelt(cls.name)}_{spelt(key)}")
    return next((field for name in names for field in fields_of(cls) if field.name == name), None)
