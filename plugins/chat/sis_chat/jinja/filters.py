"""The filters and tests that a template may use: those of Jinja and of transformers that need no ceiling of their own,
and the others with one. What is not here does not exist: ``attr``, ``center``, ``random``, ``pprint`` and the like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2 import filters, tests
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context, pass_environment

from sis_chat.jinja import strings
from sis_chat.jinja.meter import character_bytes
from sis_chat.jinja.text import SafeText, cut, given, join, marks_of

if TYPE_CHECKING:
    from sis_chat.jinja.sandbox import Sandbox

MAX_INDENT = 16
MAX_DIGITS = 100
MAX_COLUMNS = 1000

Filter = Callable[..., Any]


def text_of(env: Sandbox, value: Any) -> str:
    """What a template prints for ``value``; a list or dict is all given, for it spells what it holds."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined | int | float | bool | None):
        return str(value)
    if not isinstance(value, env.printable):
        raise SecurityError(f"a {type(value).__name__} cannot be printed")
    env.meter.hold(4 * env.meter.measure(value).size)
    return given(str(value))


def _number(value: Any, most: int, what: str) -> Any:
    if isinstance(value, int) and not -most <= value <= most:
        raise SecurityError(f"{what} of {value} is not allowed")
    return value


def _of_iterable(original: Filter) -> Filter:
    """A filter over an iterable, each item of which costs a step."""

    @wraps(original)
    @pass_context
    def counted(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        env: Any = context.environment
        return original(context, env.counted(value), *args, **kwargs)

    return counted


def _of_order(original: Filter) -> Filter:
    """A filter that compares items, which costs as much as they are large."""

    @wraps(original)
    @pass_environment
    def weighed(env: Sandbox, value: Any, *args: Any, **kwargs: Any) -> Any:
        listed = list(env.counted(value))
        env.meter.hold_items(len(listed))
        env.meter.measure(listed)
        result = original(env, listed, *args, **kwargs)
        return iter(list(result)) if isinstance(result, Iterator) else result

    return weighed


def _of_text(method: Callable[..., Any]) -> Filter:
    """A filter that is a method of strings."""

    @pass_environment
    def apply(env: Sandbox, value: Any, *args: Any, **kwargs: Any) -> Any:
        return method(env.meter, text_of(env, value), *args, **kwargs)

    return apply


@pass_environment
def default(env: Sandbox, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


@pass_environment
def first(env: Sandbox, value: Any) -> Any:
    return next(iter(value), env.undefined("No first item, sequence was empty."))


@pass_environment
def last(env: Sandbox, value: Any) -> Any:
    if isinstance(value, str):
        return cut(value, len(value) - 1) if value else env.undefined("No last item, sequence was empty.")
    return next(iter(reversed(value)), env.undefined("No last item, sequence was empty."))


@pass_environment
def list_(env: Sandbox, value: Any) -> list[Any]:
    made = list(env.counted(value))
    env.meter.hold_items(len(made))
    if isinstance(value, str):
        env.meter.hold(strings.PIECE_BYTES * len(made))
    return made


@pass_environment
def reverse(env: Sandbox, value: Any) -> Any:
    if isinstance(value, str):
        env.meter.hold(len(value) * character_bytes(value))
        return cut(value, step=-1)
    return reversed(list_(env, value))


def items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Undefined):
        return
    if not isinstance(value, Mapping):
        raise TypeError("Can only get item pairs from a mapping.")
    yield from value.items()


@pass_environment
def dictsort(
    env: Sandbox, value: Any, case_sensitive: bool = False, by: Any = "key", reverse: bool = False
) -> list[tuple[Any, Any]]:
    env.meter.hold_items(len(value))
    env.meter.measure(list(value) if by == "key" else value)
    return filters.do_dictsort(value, case_sensitive, by, reverse)


@pass_environment
def sum_(env: Sandbox, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    """Of numbers; lists would be copied again and again."""
    get = filters.make_attrgetter(env, attribute) if attribute is not None else lambda item: item
    total = start
    for item in env.counted(iterable):
        value = get(item)
        if not isinstance(value, int | float) or not isinstance(total, int | float):
            raise TypeError("only numbers can be summed up")
        total += value
    return total


@pass_environment
def batch(env: Sandbox, value: Any, linecount: int, fill_with: Any = None) -> Iterator[Any]:
    return filters.do_batch(env.counted(value), _number(linecount, MAX_COLUMNS, "batch()"), fill_with)


@pass_environment
def slice_(env: Sandbox, value: Any, slices: int, fill_with: Any = None) -> Iterator[Any]:
    return filters.sync_do_slice(env.counted(value), _number(slices, MAX_COLUMNS, "slice()"), fill_with)


@pass_environment
def join_(env: Sandbox, value: Any, d: Any = "", attribute: Any = None) -> str:
    get = filters.make_attrgetter(env, attribute) if attribute is not None else lambda item: item
    parts = (text_of(env, get(item)) for item in env.counted(value))
    return strings.join_all(env.meter, text_of(env, d), parts)


@pass_environment
def replace(env: Sandbox, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return strings.replace(
        env.meter, text_of(env, value), text_of(env, old), text_of(env, new), -1 if count is None else count
    )


@pass_environment
def indent(env: Sandbox, value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = strings.require_text(value)
    space = width if isinstance(width, str) else " " * _number(width, MAX_COLUMNS, "indent()")
    ended = join([text, "\n"])  # so that a text that ends in a new line has a last, empty one
    lines = strings.splitlines(env.meter, ended)
    env.meter.hold((len(text) + len(lines) * len(space)) * character_bytes(text, space))
    rest = [join([space, line]) if line or blank else line for line in lines[1:]]
    return join([space if first else "", join([lines[0], *rest], "\n")])


@pass_environment
def string(env: Sandbox, value: Any) -> str:
    return text_of(env, value)


@pass_environment
def safe(env: Sandbox, value: Any) -> str:
    text = text_of(env, value)
    return SafeText(text, marks_of(text))


@pass_environment
def escape(env: Sandbox, value: Any) -> str:
    """HTML's special characters spelt out, as MarkupSafe spells them."""
    text = text_of(env, value)
    env.meter.hold(6 * len(text) * character_bytes(text))
    if isinstance(text, SafeText):
        return text
    for character, spelt in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = strings.replace(env.meter, text, character, spelt)
    return text


@pass_environment
def tojson(
    env: Sandbox,
    x: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' filter writes it: no HTML escapes. What was given and what was not cannot be told apart."""
    if isinstance(indent, str) and len(indent) > MAX_INDENT:
        raise SecurityError("tojson() with so long an indent is not allowed")
    _number(indent, MAX_INDENT, "an indent")
    if separators is not None and sum(map(len, separators)) > MAX_INDENT:
        raise SecurityError("tojson() with so long separators is not allowed")
    measure = env.meter.measure(x)
    spaces = 0 if indent is None else len(indent) if isinstance(indent, str) else max(indent, 0)
    env.meter.hold(4 * (measure.size + spaces * measure.depths))
    text = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return given(text)


def int_(value: Any, default: int = 0, base: int = 10) -> int:
    return filters.do_int(value, default, base)


def round_(value: Any, precision: int = 0, method: Any = "common") -> float:
    return filters.do_round(value, _number(precision, MAX_DIGITS, "round()"), method)


@pass_environment
def wordcount(env: Sandbox, value: Any) -> int:
    return len(strings.split(env.meter, text_of(env, value)))


FILTERS: Mapping[str, Filter] = {
    "abs": abs,
    "batch": batch,
    "capitalize": _of_text(strings.METHODS["capitalize"]),
    "count": len,
    "d": default,
    "default": default,
    "dictsort": dictsort,
    "e": escape,
    "escape": escape,
    "first": first,
    "float": filters.do_float,
    "groupby": _of_order(filters.sync_do_groupby),
    "indent": indent,
    "int": int_,
    "items": items,
    "join": join_,
    "last": last,
    "length": len,
    "list": list_,
    "lower": _of_text(strings.METHODS["lower"]),
    "map": _of_iterable(filters.sync_do_map),
    "max": _of_order(filters.do_max),
    "min": _of_order(filters.do_min),
    "reject": _of_iterable(filters.sync_do_reject),
    "rejectattr": _of_iterable(filters.sync_do_rejectattr),
    "replace": replace,
    "reverse": reverse,
    "round": round_,
    "safe": safe,
    "select": _of_iterable(filters.sync_do_select),
    "selectattr": _of_iterable(filters.sync_do_selectattr),
    "slice": slice_,
    "sort": _of_order(filters.do_sort),
    "string": string,
    "sum": sum_,
    "title": _of_text(strings.METHODS["title"]),
    "tojson": tojson,
    "trim": _of_text(strings.strip),
    "unique": _of_order(filters.sync_do_unique),
    "upper": _of_text(strings.METHODS["upper"]),
    "wordcount": wordcount,
}


def _compared(original: Callable[..., bool]) -> Callable[..., bool]:
    @pass_environment
    def weighed(env: Sandbox, value: Any, other: Any) -> bool:
        env.meter.measure(value)
        env.meter.measure(other)
        return original(value, other)

    return weighed


_KNOWN: Mapping[str, Any] = tests.TESTS
TESTS: Mapping[str, Callable[..., Any]] = {
    **{
        name: _KNOWN[name]
        for name in (
            "boolean", "defined", "divisibleby", "even", "false", "float", "integer", "iterable", "lower", "mapping",
            "none", "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper",
        )
    },
    **{
        name: _compared(_KNOWN[name])
        for name in (
            "!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lt",
            "ne",
        )
    },
}  # fmt: skip
