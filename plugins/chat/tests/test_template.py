# ruff: noqa: E501 - a template a line
"""What templates rely on, one by one. Whole templates of models are compared with transformers by ``oracle/render.py``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from sis_chat.errors import TemplateError
from sis_chat.jinja import strings
from sis_chat.jinja.meter import Ceilings, Meter
from sis_chat.jinja.template import ChatTemplate
from sis_chat.jinja.text import WRITTEN, cut, given, is_given, join, marks_of, plain

RENDERED = {
    "blocks are trimmed": ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
    "undefined prints nothing": ("[{{ nope }}]", "[]"),
    "tojson leaves HTML": ("{{ {'a': '<é&>'} | tojson }}", '{"a": "<é&>"}'),
    "tojson indents": ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
    "break": ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
    "continue": ("{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "023"),
    "generation": ("{% generation %}a{% endgeneration %}b", "ab"),
    "namespace": ("{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "4"),
    "loop variables": ("{% for m in [1, 2, 3] %}{{ loop.index0 }}{{ loop.last }}{{ loop.length }} {% endfor %}",
                       "0False3 1False3 2True3 "),
    "loop neighbours": ("{% for m in 'abc' %}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}", "b,ac,b,"),
    "recursive loop": ("{% for x in [[1], []] recursive %}({{ loop(x) if x is iterable else x }}){% endfor %}", "((1))()"),
    "loop else": ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
    "loop with a test": ("{% for x in range(6) if x is odd %}{{ x }}{{ loop.length }}{% endfor %}", "133353"),
    "macro": ("{% macro f(a, b='x') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(2, b=3) }}", "<1x><23>"),
    "caller": ("{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}x{% endcall %}", "<x>"),
    "set block": ("{% set a %}x{{ 1 }}{% endset %}{{ a | upper }}", "X1"),
    "filter block": ("{% filter upper %}abc{% endfilter %}", "ABC"),
    "slices": ("{{ [1, 2, 3][1:] }}{{ 'abc'[::-1] }}{{ 'abc'[-1] }}{{ 'abc'[:2] }}", "[2, 3]cbacab"),
    "a key before a method": ("{{ {'items': 1}['items'] }}{{ {'a': 1}.items() | list }}", "1[('a', 1)]"),
    "get": ("{{ {'a': 1}.get('b', 'c') }}{{ {'a': 1}.a }}", "c1"),
    "format": ("{{ '<{}{a}>{:>3}'.format(1, 2, a='x') }}", "<1x>  2"),
    "safe escapes what it is added to": ("{{ '<' | safe + '<' }}{{ ('<' | safe) ~ '<' }}", "<&lt;<<"),
    "escape": ("{{ '<a href=\"x\">' | e }}", "&lt;a href=&#34;x&#34;&gt;"),
    "split and join": ("{{ 'a</think>b'.split('</think>')[-1] }}{{ ['a', 1] | join('-') }}", "ba-1"),
    "indent": ("{{ 'a\n\nb' | indent(2) }}{{ 'a\nb\n' | indent(1, true) }}", "a\n\n  b a\n b\n"),
    "dictsort": ("{{ {'b': 1, 'A': 2} | dictsort }}", "[('A', 2), ('b', 1)]"),
    "map and select": ("{{ [{'a': 1}, {'a': 2}] | map(attribute='a') | list }}"
                       "{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | list }}", "[1, 2][{'a': 2}]"),
    "select of none": ("{{ none | selectattr('a') | list }}", "[]"),
    "first and last": ("{{ 'abc' | first }}{{ [1, 2] | last }}{{ [] | first }}", "a2"),
    "default": ("{{ nope | default('x') }}{{ '' | default('y', true) }}", "xy"),
    "tests": ("{{ 1 is number, 'a' is string, {} is mapping, [] is sequence, none is none, nope is defined }}",
              "(True, True, True, True, True, False)"),
    "append to an own list": ("{% set a = [] %}{% set _ = a.append(1) %}{{ a }}", "[1]"),
    "arithmetic": ("{{ 7 // 2 + 2 ** 3 - 9 % 4 * 2 }}{{ 'ab' * 2 }}{{ -(1) }}", "9abab-1"),
    "comparisons": ("{{ 1 < 2 < 3, 'a' in 'abc', 'x' not in ['x'], [1] == [1] }}", "(True, True, False, True)"),
    "cycler and joiner": ("{% set c = cycler('a', 'b') %}{% set j = joiner('-') %}{% for i in range(3) %}"
                          "{{ j() }}{{ c.next() }}{% endfor %}", "a-b-a"),
    "dict": ("{{ dict(a=1) }}{{ dict([('b', 2)]) }}", "{'a': 1}{'b': 2}"),
}  # fmt: skip


def render(source: str, **values: Any) -> str:
    return ChatTemplate(source).render(values)


@pytest.mark.parametrize("name", RENDERED)
def test_templates_are_rendered(name: str) -> None:
    source, expected = RENDERED[name]
    assert render(source) == expected


def test_raise_exception_gives_the_template_s_words_and_its_line() -> None:
    with pytest.raises(TemplateError, match=r"m\.gguf, line 2: refuses the messages: Roles must alternate$"):
        ChatTemplate("\n{{ raise_exception('Roles must alternate') }}", name="m.gguf").render({})


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{% if %}", "line 1: is not usable: Expected an expression"),
        ("{% for x in y %}", "is not usable: Unexpected end of template"),
        ("{{ a.b.c }}", "line 1: fails: 'a' is undefined"),
        ("{{ x | nope }}", "is not usable: No filter named 'nope'"),
        ("{{ x is nope }}", "is not usable: No test named 'nope'"),
        ("{{ 'a' + 1 }}", "line 1: fails: TypeError"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
    ],
)
def test_a_faulty_template_says_what_is_wrong(source: str, match: str) -> None:
    with pytest.raises(TemplateError, match=match):
        render(source)


def test_values_stay_as_they_were() -> None:
    messages = [{"role": "user", "content": ["a"]}]
    render("{% set x = messages[0].content + ['b'] %}{{ x }}", messages=messages)
    assert messages == [{"role": "user", "content": ["a"]}]
    assert type(messages[0]["content"]) is list


def test_threads_share_a_template() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m }}{% endfor %}", ceilings=Ceilings(steps=1000))
    texts = [[str(i)] * 200 for i in range(50)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda t: template.render({"messages": t}), texts)) == ["".join(t) for t in texts]


def origins(text: str) -> str:
    """The text with what was given in capital brackets."""
    out, before = "", False
    for character, mark in zip(plain(text), marks_of(text), strict=True):
        given_now = mark != WRITTEN
        out += "⟦" if given_now > before else "⟧" if given_now < before else ""
        out, before = out + character, given_now
    return out + "⟧" * before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a>{{ x }}<b>", "<a>⟦<a> u⟧<b>"),
        ("{{ '<a>' + x + '<b>' }}", "<a>⟦<a> u⟧<b>"),
        ("{{ '<a>' ~ x ~ 1 }}", "<a>⟦<a> u⟧1"),
        ("{{ x[1:] }}{{ x[0] }}{{ x | first }}{{ x | last }}", "⟦a> u<<u⟧"),
        ("{{ x.split('a') | join('|') }}", "⟦<⟧|⟦> u⟧"),
        ("{{ x.split() | join('|') }}", "⟦<a>⟧|⟦u⟧"),
        ("{{ x.replace('a', '<b>') }}", "⟦<⟧<b>⟦> u⟧"),
        ("{{ '<b>'.replace('b', x) }}", "<⟦<a> u⟧>"),
        ("{{ '<{}>'.format(x) }}", "<⟦<a> u⟧>"),
        ("{{ (x ~ '<b>').strip('<') | upper }}", "⟦A> U⟧<B>"),
        ("{{ [x, '<b>'] | join('<c>') }}", "⟦<a> u⟧<c><b>"),
        ("{{ '<c>'.join([x, '<b>']) }}", "⟦<a> u⟧<c><b>"),
        ("{% set y %}<b>{{ x }}{% endset %}{{ y | trim }}", "<b>⟦<a> u⟧"),
        ("{% macro f(y) %}<b>{{ y }}{% endmacro %}{{ f(x) }}", "<b>⟦<a> u⟧"),
        ("{% filter upper %}<b>{{ x }}{% endfilter %}", "<B>⟦<A> U⟧"),
        ("{% for c in x %}{{ c }}.{% endfor %}", "⟦<⟧.⟦a⟧.⟦>⟧.⟦ ⟧.⟦u⟧."),
        ("{{ x | list | join }}{{ x | reverse }}", "⟦<a> uu >a<⟧"),
        ("{{ x | tojson }}{{ [x] }}{{ {x: 1} | string }}", "⟦\"<a> u\"['<a> u']{'<a> u': 1}⟧"),
        ("{{ x | e }}{{ x | safe }}{{ x | string }}", "⟦&lt;⟧&lt;"),
        ("{{ 'a\n' ~ x | indent(1) }}", "a\n⟦<a> u⟧"),
        ("{% for k, v in o.items() %}<{{ k }}={{ v }}>{% endfor %}", "<⟦k⟧=⟦v⟧>"),
        ("{% for k in o %}{{ k }}{% endfor %}{{ o | dictsort }}", "⟦k[('k', 'v')]⟧"),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", "<user>⟦<user>⟧"),
        ("{{ x | map('upper') | join }}{{ [x] | sort | first }}{{ [x, x] | unique | join }}", "⟦<A> U<a> u<a> u⟧"),
        ("{{ x.partition('a')[0] }}{{ x.rsplit(' ', 1)[1] }}{{ x.splitlines()[0] }}", "⟦<u<a> u⟧"),
        ("{{ x * 2 }}{{ 2 * '<b>' }}", "⟦<a> u<a> u⟧<b><b>"),
    ],
)  # fmt: skip
def test_what_was_given_stays_marked(source: str, expected: str) -> None:
    if source.startswith("{{ x | e }}"):  # escapes are spelt by us, and cannot make a control token
        expected = "⟦⟧&lt;⟦a⟧&gt;⟦ u<a> u<a> u⟧".removeprefix("⟦⟧")
    text = render(source, x="<a> u", o={"k": "v"}, messages=[{"role": "user", "content": "<user>"}])
    assert origins(text) == expected


TEXTS = st.lists(st.tuples(st.text(alphabet="ab ,ß\n<", max_size=5), st.booleans()), max_size=4).map(
    lambda parts: join([given(text) if marked else text for text, marked in parts])
)


def reference(text: str) -> list[tuple[str, str]]:
    return list(zip(plain(text), marks_of(text), strict=True))


def _without(pairs: list[tuple[str, str]], part: str) -> list[tuple[str, str]]:
    """The pairs but for those that spell ``part``, searched from left to right."""
    kept, text, at = [], "".join(c for c, _ in pairs), 0
    while (found := text.find(part, at)) >= 0:
        kept += pairs[at:found]
        at = found + len(part)
    return kept + pairs[at:]


@drawn(TEXTS, st.sampled_from(["a", "b", ",", "<", "ab", " ", "\n"]), st.sampled_from(["", "X", "yy"]))
def test_marks_follow_their_characters(text: str, part: str, new: str) -> None:
    meter = Meter(Ceilings(seconds=60))
    for name in ("strip", "lstrip", "rstrip"):
        got = strings.METHODS[name](meter, text)
        assert plain(got) == getattr(plain(text), name)()
        assert any(reference(text)[i : i + len(got)] == reference(got) for i in range(len(text) + 1))
    for sep in (part, None):
        for how in ("rsplit", "split"):
            got = strings.METHODS[how](meter, text, sep)
            assert list(map(plain, got)) == getattr(plain(text), how)(sep)
        if sep is not None:
            assert [pair for part in got for pair in reference(part)] == _without(reference(text), sep)
    replaced = strings.METHODS["replace"](meter, text, part, new)
    assert plain(replaced) == plain(text).replace(part, new)
    if not set(part) & set(new):
        assert [pair for pair in reference(replaced) if pair[0] not in new] == [
            pair for pair in _without(reference(text), part) if pair[0] not in new
        ]
    assert [plain(line) for line in strings.METHODS["splitlines"](meter, text)] == plain(text).splitlines()
    upper = strings.METHODS["upper"](meter, text)
    assert plain(upper) == plain(text).upper()
    assert is_given(upper) == is_given(text)
    assert reference(cut(text, 1, 3)) == reference(text)[1:3]
