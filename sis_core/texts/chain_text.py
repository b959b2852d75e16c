"""From what a user typed to a chain of samplers.

Three ways, the same from Python and from the command line:

- nothing but options: the default samplers, and every sampler that an option belongs to, in the order of
  `Sampler.order`;
- one name (``top-p`` or ``top-p=0.9``): that sampler, a default temperature unless it is one or chooses by itself, and
  every sampler that an option belongs to;
- a whole chain, exactly as written: items joined by ``;``. An item is ``name``, ``name=value`` for the sampler's first
  field, or ``name:field=value,field=value``. Options then only fill in what the items leave open.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from sis_core.errors import PluginError, SamplerError, SisError, suggest
from sis_core.loading.checks import several
from sis_core.registry import Registry
from sis_core.sampler import CHOOSER, TEMPERATURE, Sampler

_REQUEST = (
    "prompt sampler samplers max_tokens stop seed logprobs prompt_logprobs want context n_keep ignore_end "
    "spell_special adapter priority salt add_special parse_special"
)
RESERVED = frozenset(_REQUEST.split())  # what `LanguageModel.request` calls its own options


class SamplerOption(NamedTuple):
    """One option of a sampler, as the program (``--top-p``) and as Python spell it (``top_p``)."""

    option: str
    name: str
    sampler: type[Sampler]
    field: attrs.Attribute[Any]


def sampler_options(registry: Registry) -> list[SamplerOption]:
    """Every option of every installed sampler, in the order of a chain; ``field.type`` is a class where possible.

    An option has its field's name. Where several samplers have a field of that name it becomes
    ``<sampler>_<field>``, except for the sampler that is called like its field (``top-p`` keeps ``top_p``).
    """
    classes = []
    for name in registry.names("samplers"):
        try:
            classes.append(registry.get("samplers", name))
        except PluginError:  # two plugins claim it: an error only for whom asks for it
            continue
    fields = [(cls, field) for cls in sorted(classes, key=_place) for field in _fields(cls)]
    uses = Counter(field.name for _, field in fields)
    found = []
    for cls, field in fields:
        own = field.name == _spelt(cls.name)
        plain = own or (uses[field.name] == 1 and field.name not in RESERVED)
        name = field.name if plain else _long_name(cls, field)
        found.append(SamplerOption("--" + name.replace("_", "-"), name, cls, field))
    return found


def make_chain(
    registry: Registry,
    sampler: str | Sampler | Sequence[Sampler] | None = None,
    samplers: str | Sequence[Sampler] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Sampler]:
    """The chain for one sampler, for a whole chain, or for options alone; see the module's text.

    Args:
        sampler: one sampler's name, or ready samplers.
        samplers: a whole chain as text, or ready samplers; not together with ``sampler``.
        options: values by name as `sampler_options` names them; None means that it was not given.

    Raises:
        PluginError: a sampler that is not installed, or that two plugins claim.
        SamplerError: an option that is unknown, out of range, or that nothing in the chain would use.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if sampler is not None and samplers is not None:
        raise SamplerError("both one sampler and a whole chain were given", where="samplers", fix="leave one out")
    ready = next((found for found in (sampler, samplers) if found is not None and not isinstance(found, str)), None)
    if ready is not None:
        if given:
            raise SamplerError(
                f"the option {min(given)} has no effect on samplers that are ready",
                where="samplers",
                fix="give it to the sampler itself",
            )
        return [ready] if isinstance(ready, Sampler) else several("sampler", ready)
    wanted = _by_sampler(registry, given)
    if isinstance(samplers, str):
        return _whole_chain(registry, samplers, wanted)
    return _chosen(registry, sampler if isinstance(sampler, str) else None, wanted)


@attrs.define
class _Wanted:
    """What options ask of one sampler: values by field, and an option as it was spelt, for messages."""

    option: str
    values: dict[str, Any]


_BySampler = dict[type[Sampler], _Wanted]


def _chosen(registry: Registry, text: str | None, wanted: _BySampler) -> list[Sampler]:
    """One named sampler or the default ones, with all that options call for."""
    named: type[Sampler] | None = None
    values = {cls: want.values for cls, want in wanted.items()}
    if text is None:
        classes = _defaults(registry, 0)
        if not classes:
            raise PluginError(
                "no installed plugin brings a default sampler",
                where="samplers",
                fix=f"`pip install sis-samplers`, or name one of: {', '.join(registry.names('samplers')) or 'none'}",
            )
    else:
        named, inline = _item(registry, text, "sampler")
        classes = {named} | (_defaults(registry, TEMPERATURE) if named.order < TEMPERATURE else set())
        values[named] = _merged(named, inline, values.get(named, {}))
    for cls, want in wanted.items():
        if cls not in classes:
            _check_joins(named, cls, want.option)
            classes.add(cls)
    return [_build(cls, values.get(cls, {})) for cls in sorted(classes, key=_place)]


def _defaults(registry: Registry, first: int) -> set[type[Sampler]]:
    """The samplers of a chain that the user did not name, from the order ``first`` on."""
    names = {cls.name for cls in registry.records("samplers") if cls.default and first <= cls.order < CHOOSER}
    return {registry.get("samplers", name) for name in names}


def _check_joins(named: type[Sampler] | None, cls: type[Sampler], option: str) -> None:
    if named is None and cls.order >= CHOOSER:
        raise SamplerError(
            f"the option {option} belongs to a sampler that was not chosen",
            where=f"sampler {cls.name}",
            fix=f"choose it: --sampler {cls.name}",
        )
    if named is not None and not named.joined_by(cls):
        raise SamplerError(
            f"the option {option} would change nothing or contradict it",
            where=f"sampler {named.name}",
            fix=f"leave {option} out, or write the whole chain with --samplers",
        )


def _whole_chain(registry: Registry, text: str, wanted: _BySampler) -> list[Sampler]:
    """Exactly the samplers that ``text`` names."""
    items = [_item(registry, part, f"samplers, item {i}") for i, part in enumerate(text.split(";"), 1)]
    for cls, want in wanted.items():
        if cls not in {chosen for chosen, _ in items}:
            raise SamplerError(
                f"the option {want.option} belongs to {cls.name}, which is not in the chain",
                where="samplers",
                fix=f"add {cls.name} at its place, or leave the option out",
            )
    given = {cls: want.values for cls, want in wanted.items()}
    return [_build(cls, _merged(cls, inline, given.get(cls, {}))) for cls, inline in items]


def _item(registry: Registry, text: str, where: str) -> tuple[type[Sampler], dict[str, Any]]:
    """A sampler and the values of its fields from ``name``, ``name=value`` or ``name:field=value,field=value``."""
    match = re.fullmatch(r"\s*([^\s:=,;]+)\s*(?:([:=])(.*))?", text, re.DOTALL)
    if match is None:
        what = f"{text.strip()!r} is not a sampler" if text.strip() else "is empty"
        example = '--samplers "top-k=40;top-p=0.95;temperature=0.8"'
        fix = f"a chain is written as {example}" if where != "sampler" or ";" in text else "see `sis samplers`"
        raise SamplerError(what, where=where, fix=fix)
    name, separator, rest = match.groups()
    cls: type[Sampler] = registry.get("samplers", name, where=where)
    fields = _fields(cls)
    if separator is None:
        return cls, {}
    if not fields:
        raise SamplerError(f"{cls.name} takes no value", where=where)
    if separator == "=":
        return cls, {fields[0].name: _value(cls, fields[0], rest.strip(), where)}
    found: dict[str, Any] = {}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        field = _field(cls, key.strip())
        if field is None or not equals:
            known = [f.name for f in fields]
            what = f"{part.strip()!r} is not field=value" if not equals else f"{cls.name} has no field {key.strip()!r}"
            hint = suggest(_spelt(key.strip()), known) if equals else ""
            raise SamplerError(what + hint, where=where, fix=f"its fields are: {', '.join(known)}")
        if field.name in found:
            raise SamplerError(f"{field.name} is given twice", where=where)
        found[field.name] = _value(cls, field, value.strip(), where)
    return cls, found


def _field(cls: type[Sampler], key: str) -> attrs.Attribute[Any] | None:
    """The field that ``key`` names, in full or without the sampler's own name before it."""
    names = (_spelt(key), f"{_spelt(cls.name)}_{_spelt(key)}")
    return next((field for name in names for field in _fields(cls) if field.name == name), None)


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _value(cls: type[Sampler], field: attrs.Attribute[Any], text: str, where: str) -> Any:
    """The value that ``text`` spells for a field of type int, float or bool; other types read text themselves."""
    try:
        if field.type is bool:
            return _WORDS[text.lower()]
        return int(text) if field.type is int else float(text) if field.type is float else text
    except (ValueError, KeyError):
        rule = field.metadata.get("rule", getattr(field.type, "__name__", "another value"))
        raise SamplerError(f"{field.name} of {cls.name} is {text!r}, but must be {rule}", where=where) from None


def _merged(cls: type[Sampler], inline: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    for name in inline.keys() & given.keys():
        if inline[name] != given[name]:
            raise SamplerError(
                f"{name} is given twice, as {inline[name]!r} and as {given[name]!r}", where=f"sampler {cls.name}"
            )
    return given | inline


def _by_sampler(registry: Registry, given: Mapping[str, Any]) -> _BySampler:
    """Route values to the samplers they belong to. Every option may be spelt ``<sampler>_<field>``."""
    options = sampler_options(registry)
    known = {_long_name(o.sampler, o.field): o for o in options} | {o.name: o for o in options}
    wanted: _BySampler = {}
    for name, value in given.items():
        if name not in known:
            raise _unknown(registry, name, options)
        option = known[name]
        want = wanted.setdefault(option.sampler, _Wanted(name, {}))
        want.values = _merged(option.sampler, {option.field.name: value}, want.values)
    return wanted


def _unknown(registry: Registry, name: str, options: list[SamplerOption]) -> SisError:
    for cls in registry.records("samplers"):
        if any(field.name == name for field in _fields(cls)):
            try:
                registry.get("samplers", cls.name)
            except PluginError as clash:
                return clash
    same = [o for o in options if o.field.name == name]
    if same:
        owners = " and ".join(o.sampler.name for o in same)
        fix = f"write {' or '.join(o.name for o in same)}"
        return SamplerError(f"{owners} both have an option {name}", where="samplers", fix=fix)
    names = sorted({o.name for o in options})
    return SamplerError(
        f"no installed sampler has an option {name!r}{suggest(name, names)}",
        where="samplers",
        fix=f"options are: {', '.join(names) or 'none'}",
    )


def _build(cls: type[Sampler], values: dict[str, Any]) -> Sampler:
    missing = [f.name for f in _fields(cls) if f.default is attrs.NOTHING and f.name not in values]
    if missing:
        raise SamplerError(f"needs a value for {missing[0]}", where=f"sampler {cls.name}")
    aliases = {field.name: field.alias or field.name for field in _fields(cls)}
    try:
        return cls(**{aliases[name]: value for name, value in values.items()})
    except SisError:
        raise
    except Exception as error:  # a stranger's validator
        raise SamplerError(f"{type(error).__name__}: {error}", where=f"sampler {cls.name}") from error


def _fields(cls: type[Sampler]) -> list[attrs.Attribute[Any]]:
    """The fields that are options, with their types as classes where they can be resolved."""
    if not attrs.has(cls):
        return []
    with contextlib.suppress(NameError):  # a type that only a type checker sees
        attrs.resolve_types(cls)
    return [field for field in attrs.fields(cls) if field.init and not field.name.startswith("_")]


def _place(cls: type[Sampler]) -> tuple[int, str]:
    return cls.order, cls.name


def _spelt(name: str) -> str:
    return name.replace("-", "_")


def _long_name(cls: type[Sampler], field: attrs.Attribute[Any]) -> str:
    return f"{_spelt(cls.name)}_{field.name}"
