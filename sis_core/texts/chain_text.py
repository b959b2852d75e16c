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

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from sis_core.errors import PluginError, SamplerError, SisError, suggest
from sis_core.loading.checks import several
from sis_core.registry import Registry
from sis_core.sampler import CHOOSER, TEMPERATURE, Sampler
from sis_core.texts.named import Naming, fields_of, spelt

_REQUEST = (
    "prompt sampler samplers max_tokens stop seed logprobs prompt_logprobs want context n_keep ignore_end "
    "spell_special adapter priority salt add_special parse_special"
)
RESERVED = frozenset(_REQUEST.split())  # what `LanguageModel.request` calls its own options

SAMPLERS = Naming(
    "samplers",
    "sampler",
    SamplerError,
    'a chain is written as --samplers "top-k=40;top-p=0.95;temperature=0.8"',
)


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
    fields = [(cls, field) for cls in sorted(classes, key=_place) for field in fields_of(cls)]
    uses = Counter(field.name for _, field in fields)
    found = []
    for cls, field in fields:
        own = field.name == spelt(cls.name)
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
        fix = SAMPLERS.fix if ";" in text else "see `sis samplers`"
        named, inline = SAMPLERS.item(registry, text, "sampler", fix)
        classes = {named} | (_defaults(registry, TEMPERATURE) if named.order < TEMPERATURE else set())
        values[named] = _merged(named, inline, values.get(named, {}))
    for cls, want in wanted.items():
        if cls not in classes:
            _check_joins(named, cls, want.option)
            classes.add(cls)
    return [SAMPLERS.build(cls, values.get(cls, {})) for cls in sorted(classes, key=_place)]


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
    items = [SAMPLERS.item(registry, part, f"samplers, item {i}") for i, part in enumerate(text.split(";"), 1)]
    for cls, want in wanted.items():
        if cls not in {chosen for chosen, _ in items}:
            raise SamplerError(
                f"the option {want.option} belongs to {cls.name}, which is not in the chain",
                where="samplers",
                fix=f"add {cls.name} at its place, or leave the option out",
            )
    given = {cls: want.values for cls, want in wanted.items()}
    return [SAMPLERS.build(cls, _merged(cls, inline, given.get(cls, {}))) for cls, inline in items]


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
        if any(field.name == name for field in fields_of(cls)):
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


def _place(cls: type[Sampler]) -> tuple[int, str]:
    return cls.order, cls.name


def _long_name(cls: type[Sampler], field: attrs.Attribute[Any]) -> str:
    return f"{spelt(cls.name)}_{field.name}"
