# ruff: noqa: E501 - a template a line
"""Templates by strangers who want in, or want all memory and all time. Each is refused, or costs little."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from sis_chat.command import command
from sis_chat.errors import MessageError, TemplateError
from sis_chat.jinja.meter import Ceilings
from sis_chat.jinja.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
DOUBLING = "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}" \
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}"  # fmt: skip
TUPLES = "{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}"
LONG = "{% set long = 'abcdefgh' * 100000 %}"
MANY = "{% set many = range(100000) | list %}"

ESCAPES = {
    "class walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class walk by item": "{{ ''['__class__']['__mro__'] }}",
    "class walk from messages": "{{ messages[0].__class__.__base__ }}",
    "globals of cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of joiner": "{{ joiner.__init__.__globals__ }}",
    "globals of namespace": "{{ namespace.__init__.__globals__ }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "class of a namespace": "{{ namespace(a=1).__class__.__init__.__globals__ }}",
    "loop": "{% for m in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "loop's inside": "{% for m in messages %}{{ loop._iterable.gi_frame.f_globals }}{% endfor %}",
    "macro": "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}",
    "macro's environment": "{% macro f() %}{% endmacro %}{{ f._environment }}",
    "self": "{{ self.__init__.__globals__ }}",
    "self's environment": "{{ self._TemplateReference__context.environment }}",
    "method": "{{ ''.join.__self__.__class__ }}",
    "method's function": "{{ ''.join.function.__globals__ }}",
    "method's meter": "{{ ''.join.meter.ceilings }}",
    "generator": "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "undefined": "{{ nope.__class__ }}",
    "undefined's inside": "{{ nope._undefined_exception.__init__ }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "map of attributes": "{{ [''] | map(attribute='__class__') | list }}",
    "map of the attr filter": "{{ [''] | map('attr', '__class__') | list }}",
    "sort by class": "{{ messages | sort(attribute='__class__') }}",
    "select by class": "{{ messages | selectattr('__class__.__init__.__globals__') | list }}",
    "groupby class": "{{ messages | groupby('__class__.__mro__') }}",
    "format walk": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "format walk by name": "{{ '{a.__class__}'.format(a='') }}",
    "format walk by item": "{{ '{0[__class__]}'.format(messages) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%s' | format(cycler) }}",
    "format through map": "{{ ['{0.__class__}'] | map('format', '') | list }}",
    "encode": "{{ 'a'.encode('rot13') }}",
    "translate": "{{ 'a'.translate({97: 'b' * 1000}) }}",
    "mutate messages": "{% set _ = messages.append(1) %}",
    "mutate by clear": "{% set _ = messages.clear() %}",
    "mutate a message": "{% set _ = messages[0].update(content='x') %}",
    "mutate by pop": "{% set _ = messages[0].pop('content') %}",
    "mutate by setdefault": "{% set _ = messages[0].setdefault('x', 1) %}",
    "mutate by reversing": "{% set _ = messages.reverse() %}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "int's bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "call a class": "{{ messages.__class__() }}",
    "call a text": "{{ 'a'() }}",
    "namespace's underscore": "{% set ns = namespace(__class__=1) %}",
    "namespace's underscore later": "{% set ns = namespace() %}{% set ns.__init__ = 1 %}{{ ns.__init__ }}",
    "print a function": "{{ range }}",
    "print a generator": "{{ messages | map('upper') }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import path %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{% endblock %}",
    "do": "{% do messages.append(1) %}",
    "debug": "{% debug %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "trans": "{% trans %}a{% endtrans %}",
    "format by a width that is given, then a walk": "{{ '{0:{1}}'.format('a', 2000000000) }}{{ '{0.__class__.__mro__[1]}'.format('') }}",
    "format_map with a function": "{{ '{a.__class__.__init__.__globals__}'.format_map({'a': cycler}) }}",
}
COSTS = {
    "range": "{% for i in range(1000000000) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops of macros": "{% macro f(n) %}{% for i in range(100) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(1) }}",
    "recursive loop": "{% set ns = namespace(a=[[]]) %}{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "text times": "{{ 'a' * 1000000000 }}",
    "times text": "{{ 1000000000 * 'a' }}",
    "list times": "{{ ([0] * 1000000000) | length }}",
    "tuple times": "{{ ((0,) * 1000000000) | length }}",
    "times on its own": "{% set x = 'a' * 1000000000 %}",
    "power": "{{ 9 ** 9 ** 8 }}",
    "power of a power": "{{ 9 ** (9 ** 8) }}",
    "power of a variable": "{% set x = 9 %}{% set y = x ** x ** 8 %}",
    "square": "{% set ns = namespace(a=3) %}{% for i in range(64) %}{% set ns.a = ns.a * ns.a %}{% endfor %}",
    "center": "{{ '' | center(1000000000) }}",
    "ljust": "{{ ''.ljust(1000000000) }}",
    "zfill": "{{ ''.zfill(1000000000) }}",
    "expandtabs": "{{ '\\t'.expandtabs(1000000000) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent by argument": "{{ '%*d' % (1000000000, 1) }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format precision": "{{ '{:.1000000000f}'.format(1.5) }}",
    "round": "{{ 1.5 | round(1000000000, 'floor') }}",
    "indent": "{{ 'a\nb' | indent(1000000000) }}",
    "JSON indent": "{{ messages | tojson(indent=1000000000) }}",
    "JSON separators": LONG + "{{ messages | tojson(separators=(long, long)) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "wordwrap": "{{ 'a' | wordwrap(0) }}",
    "truncate": "{{ 'a' | truncate(1000000000) }}",
    "urlize": "{{ 'www.a.b ' | urlize }}",
    "time format": "{{ strftime_now('%1000000000d') }}",
    "int": "{% set x = ('9' * 100000) | int %}",
    "long integer": "{{ " + "9" * 5000 + " }}",
    "macro of itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macros of each other": "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
    "caller": "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}"
    "{% endmacro %}{{ g() }}",
    "parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "brackets": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "nots": "{{ " + "not " * 3000 + "1 }}",
    "minuses": "{{ " + "- " * 3000 + "1 }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "fors": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "attributes": "{{ a" + ".b" * 3000 + " }}",
    "filters": "{{ a" + "|trim" * 3000 + " }}",
    "sums": "{{ 1" + "+1" * 3000 + " }}",
    "elifs": "{% if 0 %}" + "{% elif 0 %}" * 20000 + "{% endif %}",
    "many prints": "{{ a }}" * 60000,
    "many characters": "a" * 2000000,
    "many names": "{{ [" + ",".join(f"a{i}" for i in range(30000)) + "] | length }}",
    "many lines": "\n" * 1000000,
    "many comments": "{# a #}" * 100000,
    "constant fold": "{{ ('a' * 1000000) * 1000000 }}",
    "constant fold of a filter": "{{ ('a,' * 1000).split(',') | join('a' * 1000000) }}",
    "long comparison": MANY + "{% for i in range(9999) %}{% if many == many[:] %}{% endif %}{% endfor %}",
    "in, again and again": MANY + "{% for i in range(99999) %}{% if -1 in many %}{% endif %}{% endfor %}",
    "in test, again and again": MANY + "{% for i in range(99999) %}{% if -1 is in many %}{% endif %}{% endfor %}",
    "sort, again and again": MANY + "{% for i in range(99999) %}{% set x = many | sort %}{% endfor %}",
    "sum, again and again": MANY + "{% for i in range(99999) %}{% set x = many | sum %}{% endfor %}",
    "max, again and again": MANY + "{% for i in range(99999) %}{% set x = many | max %}{% endfor %}",
    "unique, again and again": MANY + "{% for i in range(99999) %}{% set x = many | unique | list %}{% endfor %}",
    "reverse, again and again": MANY + "{% for i in range(99999) %}{% set x = many | reverse %}{% endfor %}",
    "copy, again and again": MANY + "{% for i in range(99999) %}{% set x = many[:] %}{% endfor %}",
    "dict, again and again": MANY + "{% for i in range(99999) %}{% set x = dict(many | batch(2)) %}{% endfor %}",
    "count, again and again": MANY + "{% for i in range(99999) %}{% set x = many.count(1) %}{% endfor %}",
    "index, again and again": MANY + "{% for i in range(99999) %}{% set x = many.index(99999) %}{% endfor %}",
    "pop, again and again": MANY + "{% for i in range(99999) %}{% set x = many.pop(0) %}{% endfor %}",
    "arguments, again and again": MANY + "{% macro f() %}{% set x = varargs %}{% endmacro %}{% for i in many %}{{ f(*many) }}{% endfor %}",
    "sum of lists": MANY + "{{ (many | batch(2)) | sum(start=[]) }}",
    "replace, again and again": LONG + "{% for i in range(99999) %}{% set x = long.replace('a', 'b') %}{% endfor %}",
    "replace by more": "{% set ns = namespace(a='a') %}{% for i in range(99) %}"
    "{% set ns.a = ns.a.replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    "replace filter": "{{ ('a' * 10000) | replace('a', 'b' * 1000000) }}",
    "replace nothing": LONG + "{{ long.replace('', long) }}",
    "find, again and again": LONG + "{% for i in range(99999) %}{% set x = long.find('hgf') %}{% endfor %}",
    "split": "{% set x = (',' * 4000000).split(',') %}",
    "split at spaces": "{% set x = ('a ' * 2000000).split() %}",
    "split lines": "{% set x = ('\n' * 4000000).splitlines() %}",
    "characters": "{% set x = ('ab' * 2000000) | list %}",
    "upper, again and again": LONG + "{% for i in range(99999) %}{% set x = long.upper() %}{% endfor %}",
    "strip, again and again": LONG + "{% for i in range(99999) %}{% set x = long.strip('abc') %}{% endfor %}",
    "join": LONG + "{{ [long, long, long] | join(long * 2) }}",
    "join with a long text": "{% set x = (range(100000) | list) | join('a' * 10000) %}",
    "concatenation": "{% set ns = namespace(a='a') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "sum of texts": "{% set ns = namespace(a='a') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "sum of lists by plus": "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "growth of a list": "{% set ns = namespace(a=[]) %}{% for i in range(99999) %}{% set ns.a = ns.a + [i] %}{% endfor %}",
    "growth of a list of lists": "{% set a = [] %}{% for i in range(99999) %}{% for j in range(99) %}"
    "{% set _ = a.append([[], [], [], [], [], [], [], [], []]) %}{% endfor %}{% endfor %}",
    "set block": "{% set a %}aaaaaaaaaa{% endset %}" + "{% set a %}{{ a }}{{ a }}{{ a }}{{ a }}{% endset %}" * 30,
    "macro's text": "{% macro f(n) %}{% for i in range(9) %}" + "a" * 9000 + "{{ f(n) if n else '' }}{% endfor %}"
    "{% endmacro %}{% set x = f(1) %}",
    "loop in a macro": "{% macro f() %}{% for i in range(99999) %}" + "a" * 100000 + "{% endfor %}{% endmacro %}"
    "{% set x = f() %}",
    "output": "{% for i in range(99999) %}" + "a" * 100000 + "{% endfor %}",
    "filter block": "{% filter upper %}{% for i in range(99999) %}" + "a" * 100000 + "{% endfor %}{% endfilter %}",
    "doubling lists printed": DOUBLING + "{{ ns.a }}",
    "doubling lists as text": DOUBLING + "{% set x = ns.a | string %}",
    "doubling lists joined": DOUBLING + "{% set x = 'a' ~ ns.a %}",
    "doubling lists as JSON": DOUBLING + "{% set x = ns.a | tojson %}",
    "doubling lists compared": DOUBLING + "{% if ns.a == ns.b %}{% endif %}",
    "doubling lists in a list": DOUBLING + "{% if ns.a in [ns.b] %}{% endif %}",
    "doubling lists sorted": DOUBLING + "{% set x = [ns.a, ns.b] | sort %}",
    "doubling lists tested": DOUBLING + "{% if ns.a is eq(ns.b) %}{% endif %}",
    "doubling lists counted": DOUBLING + "{% set x = [ns.a].count(ns.b) %}",
    "doubling lists formatted": DOUBLING + "{% set x = '{}'.format(ns.a) %}",
    "doubling tuples hashed": TUPLES + "{% set x = {ns.a: 1} %}",
    "doubling tuples as a key": TUPLES + "{% set x = {}[ns.a] %}",
    "doubling tuples got": TUPLES + "{% set x = {}.get(ns.a) %}",
    "doubling tuples unique": TUPLES + "{% set x = [ns.a, ns.a] | unique | list %}",
    "doubling tuples in a dict": TUPLES + "{% if ns.a in {} %}{% endif %}",
    "doubling tuples as a dict": TUPLES + "{% set x = dict([(ns.a, 1)]) %}",
    "doubling raised": DOUBLING + "{{ raise_exception(ns.a) }}",
    "loop changed": DOUBLING + "{% for x in [ns.a, ns.b] %}{% if loop.changed(x) %}{% endif %}{% endfor %}",
    "deep list printed": "{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}"
    "{{ ns.a }}",
    "deep list compared": "{% set ns = namespace(a=[], b=[]) %}{% for i in range(99999) %}{% set ns.a = [ns.a] %}"
    "{% set ns.b = [ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "list in itself": "{% set a = [] %}{% set _ = a.append(a) %}{{ a | tojson }}",
    "list in itself, looped": "{% set a = [1] %}{% for x in a %}{% set _ = a.append(1) %}{% endfor %}",
    "maps of maps": "{{ range(9999) | map('string') | map('list') | map('join', 'a' * 99999) | list | length }}",
    "cycle": "{% for i in range(999999) %}{{ loop.cycle('a' * 100000) }}{% endfor %}",
    "length of a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{{ loop.length }}{% endfor %}{% endfor %}",
    "keyword names": "{{ dict(self=1, obj=2, context=3, meter=4, value=5, env=6, _Context__obj=7) }}",
    "keyword self of a method": "{{ 'a'.replace(self=1, meter=2, text=3) }}",
    "keyword names of format": "{{ '{text}{meter}'.format(text=1, meter=2) }}",
    "huge batch of JSON": "{{ range(99999) | map('tojson') | list | tojson | tojson | tojson | tojson | length }}",
    "quotes in JSON": "{% set ns = namespace(a='\"') %}{% for i in range(99) %}{% set ns.a = ns.a | tojson %}{% endfor %}",
    "escapes": "{% set ns = namespace(a='&' * 999) %}{% for i in range(99) %}{% set ns.a = ns.a | e %}{% endfor %}",
    "control characters as JSON": "{% set x = ('\x01' * 4000000) | tojson %}",
    "maps around maps": "{% set ns = namespace(a=[1]) %}{% for i in range(99999) %}{% set ns.a = ns.a | map('string') %}{% endfor %}",
    "maps around maps, used": "{% set ns = namespace(a=[1]) %}{% for i in range(9999) %}{% set ns.a = ns.a | map('string') %}{% endfor %}{{ ns.a | list }}",
    "selects around selects": "{% set ns = namespace(a=[1]) %}{% for i in range(99999) %}{% set ns.a = ns.a | select %}{% endfor %}",
    "undefined of undefined": "{% set ns = namespace(a=[1]) %}{% for i in range(99999) %}{% set ns.a = [ns.a].x %}{% endfor %}",
    "escapes without an end": "{{ '" + "\\" * 250000,
    "digits and underscores": "{{ " + "1_" * 120000 + "1 }}",
    "long text in a long text": LONG + "{% set b = 'a' * 100000 ~ 'b' %}{% for i in range(99999) %}{% if b in long %}{% endif %}{% endfor %}",
    "keys hashed again": "{% set d = dict(range(99999) | map('string') | batch(2)) %}{% for i in range(999) %}{% set x = d | dictsort %}{% endfor %}",
    "wide characters, doubled": "{% set ns = namespace(a='\U0001f600') %}{% for i in range(99) %}"
    "{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "wide characters": "{% set x = '\U0001f600' * 7000000 %}",
    "join of a range with a long separator": "{% set sep = 'x' * 200000 %}{{ range(2000) | list | join(sep) | length }}",
    "a namespace's text, doubled and counted": "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}",
    "replace of what was replaced": "{% set a = 'a' * 1000 %}{% set b = a | replace('a', a) %}{% set c = b | replace('a', a) %}",
    "replace between all characters": "{% set a = 'a' * 60000 %}{{ a.replace('', a) | length }}",
    "batch filled up": "{% for r in [1] | batch(500000000, 0) %}{{ r | length }}{% endfor %}",
    "slice filled up": "{% for r in [1] | slice(1000000000, 0) %}{{ loop.index }}{% endfor %}",
    "indent of many lines": "{% set t = 'a\n' * 3000 %}{{ t | indent(3000000) | length }}",
    "wordwrap by a long text": "{% set w = 'w' * 100000 %}{{ ('a ' * 50000) | wordwrap(1, true, w) | length }}",
    "JSON of a list that is shared": "{% set ns = namespace(l=['x']) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson | length }}",
    "JSON of a deep list, indented": "{% set ns = namespace(l=[1]) %}{% for i in range(150) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson(indent=100000000) }}",
    "lists in themselves, compared": "{% set l = [1] %}{% set _ = l.append(l) %}{% set m = [1] %}{% set _ = m.append(m) %}{{ l == m }}{{ l | tojson }}{{ l }}",
    "percent with a width of zeros": "{{ '%0*d' % (2000000000, 1) }}{{ '%2000000000d' | format(1) }}",
    "integers squared": "{% set ns = namespace(n=9999999999) %}{% for i in range(40) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n % 7 }}",
    "a long integer, then a power of a power": "{{ ('9' * 400000) | int % 7 }}{{ (10 ** (10 ** 8)) % 7 }}",
    "powers, again and again": "{% for i in range(99999) %}{% for j in range(99999) %}{% if 3 ** (2000 + i % 7) == 0 %}{% endif %}{% endfor %}{% endfor %}",
    "macros that call each other's callers": "{% macro a(n) %}{{ caller(n) }}{% endmacro %}{% macro b(n) %}{% call(x) a(n) %}{{ b(x + 1) }}{{ b(x + 1) }}{% endcall %}{% endmacro %}{{ b(0) }}",
    "recursive loop that forks": "{% set t = [1, 2] %}{% for x in [t] recursive %}{{ loop([t, t]) if loop.depth < 40 }}{% endfor %}",
    "groups and order of long keys": "{% set k = 'k' * 100000 %}{% set rows = [] %}{% for i in range(3000) %}{% set _ = rows.append({'a': k ~ i}) %}{% endfor %}{% for i in range(5000) %}{{ rows | groupby('a') | length }}{{ rows | sort(attribute='a') | length }}{% endfor %}",
    "maps of a long list, again and again": "{% set big = range(90000) | list %}{% for i in range(20000) %}{% if big | map('string') | map('upper') | select('eq', 'q') | list %}{% endif %}{% endfor %}",
    "searches that nearly match": "{% set h = ('a' * 200000) ~ 'b' %}{% set n = ('a' * 100000) ~ 'c' %}{% for i in range(99999) %}{% if n in h or h.find(n) > 0 or h.count(n) or h.split(n) | length > 1 %}{% endif %}{% endfor %}",
    "letters that grow in upper case": "{% set u = '\u0390\ufb03\U0001f468\u200d' * 100000 %}{% for i in range(20000) %}{% set v = u | upper | lower | title | capitalize | trim %}{% endfor %}",
    "a message of megabytes raised": "{% set m = '\u2603' * 900000 %}{{ raise_exception(m ~ m) }}",
    "set blocks of set blocks": "{% set a %}xxxxxxxxxx{% endset %}" + ("{% set a %}" + "{{ a }}" * 10 + "{% endset %}") * 12 + "{{ a | length }}",
}  # fmt: skip


QUICK = Ceilings(seconds=0.1)  # a tenth of the time, so that the tests are quick
MEMORY = 64 * 2**20


@pytest.mark.parametrize("name", ESCAPES)
def test_a_way_out_of_the_sandbox_is_refused(name: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(ESCAPES[name]).render({"messages": MESSAGES})


def test_what_costs_too_much_ends_early_and_small() -> None:
    """One template that is not stopped takes hours, or more memory than the process may have."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process while it runs")
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["used", str(len(COSTS))]


def use_all() -> None:
    """Use every costly template in this process, within `MEMORY` more than it has."""
    import resource

    ChatTemplate("{{ messages | tojson }}").render({"messages": MESSAGES})
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for name, source in COSTS.items():
        try:
            with contextlib.suppress(TemplateError):
                ChatTemplate(source, ceilings=QUICK).render({"messages": MESSAGES})
        except MemoryError:
            sys.exit(f"{name}: needs more than {MEMORY} bytes")
    print("used", len(COSTS))


def test_the_ceilings_scale_with_what_was_given() -> None:
    source = (
        "{% set ns = namespace(a='') %}{% for m in messages %}{% set ns.a = ns.a ~ m.content %}{% endfor %}{{ ns.a }}"
    )
    messages = [{"role": "user", "content": "x" * 4000}] * 200
    assert len(ChatTemplate(source).render({"messages": messages})) == 800_000


def test_a_ceiling_says_which_and_what_to_do() -> None:
    template = ChatTemplate("a\n{% for i in range(100) %}{% endfor %}", ceilings=Ceilings(steps=50), name="m.gguf")
    with pytest.raises(
        TemplateError, match=r"m.gguf, line 2: fails: it takes more than 50 steps. Choose .* --template "
    ):
        template.render({})
    assert "--template" in [name for option in command.params for name in option.opts]


def test_values_nested_too_deep_are_refused() -> None:
    value: list[object] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(MessageError, match="nested more than 64"):
        ChatTemplate("").render({"messages": value})


if __name__ == "__main__":
    use_all()
