"""Jinja's sandbox with allow-lists and a meter.

Jinja stops a template from reaching Python; it does not stop it from taking all memory and all time. Here nothing is
computed while compiling, every attribute, method, filter and test is on a list, and what grows is counted before it is
made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context

from sis_chat.jinja import rewrite
from sis_chat.jinja.extensions import CountTokens, Generation
from sis_chat.jinja.filters import FILTERS, TESTS, escape, text_of
from sis_chat.jinja.functions import FUNCTIONS
from sis_chat.jinja.inserted import INSERTED
from sis_chat.jinja.meter import CeilingError, Counted, Meter, character_bytes
from sis_chat.jinja.methods import ATTRIBUTES, Method, methods_of
from sis_chat.jinja.text import SafeText, Text, cut, join, marks_of

MAX_INTEGER_BITS = 4096
MAX_CALL_DEPTH = 100
_ABSENT: Any = object()


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
        self.filters = {**FILTERS, **INSERTED}
        self.tests = dict(TESTS)
        self.globals = dict(FUNCTIONS)
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
        function = methods_of(obj).get(name)
        if function is not None:
            return Method(function, self.meter, obj)
        if isinstance(obj, Undefined) and not name.startswith("_"):
            return getattr(obj, name)  # raises what says that the object is undefined
        if isinstance(obj, Namespace) and not name.startswith("_"):
            return getattr(obj, name, _ABSENT)
        for kind, names in ATTRIBUTES:
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
