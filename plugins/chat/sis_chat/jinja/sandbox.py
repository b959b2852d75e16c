"""Jinja's sandbox with allow-lists and a meter.

Jinja stops a template from reaching Python; it does not stop it from taking all memory and all time. Here nothing is
computed while compiling, every attribute, method, filter and test is on a list, and what grows is counted before it is
made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from attrs import frozen
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace, pass_context, pass_environment

from sis_chat.jinja import rewrite
from sis_chat.jinja.filters import FILTERS, TESTS, escape, text_of
from sis_chat.jinja.meter import CeilingError, Counted, Meter, character_bytes
from sis_chat.jinja.strings import METHODS
from sis_chat.jinja.text import SafeText, Text, cut, join, marks_of

MAX_INTEGER_BITS = 4096
MAX_TIME_FORMAT = 200
MAX_CALL_DEPTH = 100
MAX_MESSAGE = 1000
_ABSENT: Any = object()


class GivenList(list[Any]):
    """A list that the caller gave. A template may append to lists of its own only."""


class RaisedError(JinjaError):
    """The template called ``raise_exception``: it says what is wrong with the messages."""


@frozen
class Method:
    """A method of a value, as a template gets it."""

    function: Callable[..., Any]
    meter: Meter
    value: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.meter, self.value, *args, **kwargs)


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


class Generation(Extension):
    """``{% generation %}``: marks what a model wrote, for training. Here it is a scope and nothing else."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(list(parser.parse_statements(("name:endgeneration",), drop_needle=True)), lineno=line)


class CountTokens(Extension):
    """Refuses a template of too many tokens while it is read."""

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        meter = self.environment.meter  # type: ignore[attr-defined]
        left = meter.ceilings.tokens
        for token in stream:
            meter.spend()
            left -= 1
            if left < 0:
                raise CeilingError(f"it has more than {meter.ceilings.tokens} tokens")
            yield token


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
_PLAIN_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (LoopContext, _LOOP),
    (Cycler, frozenset({"next", "reset", "current"})),
)


def _methods(value: Any) -> Mapping[str, Callable[..., Any]]:
    if isinstance(value, str):
        return METHODS
    if isinstance(value, dict):
        return _DICT
    if type(value) is list:
        return _OWN_LIST
    if isinstance(value, list):
        return _LIST
    return _SEQUENCE if isinstance(value, tuple) else {}


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


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one use of one template: it carries the `Meter`."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    printable: ClassVar[tuple[type, ...]] = (list, tuple, dict, type({}.items()), type({}.keys()), type({}.values()))

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._depth = 0
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing is computed before the meter runs
            finalize=_print,
            extensions=[Generation, CountTokens, loopcontrols],
            cache_size=0,
        )
        self.filters = {**FILTERS, **_INTERNAL}
        self.tests = dict(TESTS)
        self.globals = {
            "range": safe_range,
            "dict": dict_,
            "namespace": Names,
            "cycler": Cycler,
            "joiner": Joiner,
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }
        self._callables = frozenset(self.globals.values())

    def metered(self, meter: Meter) -> Sandbox:
        """The same environment with a meter of its own, for one rendering."""
        env = copy.copy(self)
        env.meter, env._depth = meter, 0
        return env

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        rewrite.check(tree, self.meter.ceilings.depth)
        return rewrite.rewrite(tree)

    def concat(self, parts: Iterable[str]) -> str:
        """What a macro or a block has printed."""
        listed = list(parts)
        self.meter.hold(sum(map(len, listed)) * character_bytes(*listed))
        return join(listed)

    def counted(self, value: Any) -> Any:
        """``value`` so that every item costs a step."""
        return value if isinstance(value, Counted) else Counted(value, self.meter)

    def getattr(self, obj: Any, attribute: str) -> Any:
        found = self._attribute(obj, attribute)
        if found is not _ABSENT:
            return found
        if isinstance(obj, dict):
            try:
                return obj[attribute]
            except KeyError:
                pass
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):  # to hash it costs as much as it holds
            self.meter.measure(argument)
        try:
            if isinstance(obj, str):
                if not isinstance(argument, int):
                    raise TypeError
                obj[argument]
                return cut(obj, argument, argument + 1 or None)
            if isinstance(obj, dict | list | tuple | range | Undefined):
                return obj[argument]
        except (TypeError, LookupError):
            pass
        if isinstance(argument, str):
            found = self._attribute(obj, argument)
            if found is not _ABSENT:
                return found
        return self.undefined(obj=obj, name=argument)

    def _attribute(self, obj: Any, name: str) -> Any:
        """A value, something undefined that says why it must not be had, or `_ABSENT`."""
        function = _methods(obj).get(name)
        if function is not None:
            return Method(function, self.meter, obj)
        if isinstance(obj, Undefined) and not name.startswith("_"):
            return getattr(obj, name)  # raises what says that the object is undefined
        if isinstance(obj, Namespace) and not name.startswith("_"):
            return getattr(obj, name, _ABSENT)
        for kind, names in _PLAIN_ATTRIBUTES:
            if isinstance(obj, kind) and name in names:
                return getattr(obj, name)
        known = hasattr(type(obj), name)
        if name.startswith("_") and (known or not isinstance(obj, dict)):
            raise SecurityError(f"the attribute {name!r} is private")
        if known:
            return self.unsafe_undefined(obj, name)
        return _ABSENT

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.hold_items(len(args) + len(kwargs))
        if isinstance(obj, LoopContext):  # a recursive loop
            args = (self.counted(args[0]), *args[1:])
        elif isinstance(obj, Undefined):
            return obj()
        elif not self._may_call(obj):
            raise SecurityError(f"a {type(obj).__name__} cannot be called")
        elif isinstance(getattr(obj, "__self__", None), LoopContext):  # changed() compares
            self.meter.measure(args)
        self._depth += 1
        if self._depth > MAX_CALL_DEPTH:
            raise CeilingError(f"macros call each other more than {MAX_CALL_DEPTH} deep")
        try:
            return context.call(obj, *args, **kwargs)
        finally:
            self._depth -= 1

    def _may_call(self, obj: Any) -> bool:
        if isinstance(obj, Method | Macro | Joiner):
            return True
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, LoopContext | Cycler):
            return True
        try:
            return obj in self._callables
        except TypeError:
            return False

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.meter.spend()
        if operator == "+":
            return self._add(left, right)
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% with a text is not allowed")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    return self._repeat(sequence, times)
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_INTEGER_BITS:
                raise CeilingError(f"{operator} makes an integer of more than {MAX_INTEGER_BITS} bits")
        return super().call_binop(context, operator, left, right)

    def _add(self, left: Any, right: Any) -> Any:
        if isinstance(left, str) and isinstance(right, str):
            if isinstance(left, SafeText) or isinstance(right, SafeText):
                both = join([escape(self, left), escape(self, right)])
                self.meter.hold(len(both) * character_bytes(both))
                return SafeText(both, marks_of(both))
            self.meter.hold((len(left) + len(right)) * character_bytes(left, right))
            return join((left, right))
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            self.meter.hold_items(len(left) + len(right))
        return left + right

    def _repeat(self, sequence: Any, times: int) -> Any:
        n = len(sequence) * max(times, 0)
        if isinstance(sequence, str):
            self.meter.hold(n * character_bytes(sequence))
            text = str.__mul__(sequence, times)
            return Text(text, sequence.marks * max(times, 0)) if isinstance(sequence, Text) else text
        self.meter.hold_items(n)
        return sequence * times


@pass_context
def _print(context: Context, value: Any) -> str:
    """What stands in the output for ``value``. Jinja calls it for everything that a template writes."""
    env: Any = context.environment
    text = text_of(env, value)
    env.meter.spend(1 + len(text) // 1024)
    return text


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


_INTERNAL: Mapping[str, Callable[..., Any]] = {
    rewrite.COUNTED: _counted,
    rewrite.WEIGHED: _weighed,
    rewrite.MADE: _made,
    rewrite.JOINED: _joined,
    rewrite.SLICED: _sliced,
}
