"""What may be given: dicts, text, files, pydantic's models; GBNF and Lark; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter
from sis_grammar import compiler
from sis_grammar.caps import MAX_CONSTANT_BYTES, MAX_DEPTH, MAX_PROPERTIES, MAX_RULES, MAX_TEXT_BYTES
from sis_grammar.given import read_grammar, read_schema
from sis_grammar.sampler import Grammar

from sis_core.errors import SamplerError
from sis_core.sampler import SamplerContext, SamplerState

Started = Callable[..., SamplerState]
Follow = Callable[[SamplerState, int], tuple[list[int], bytes]]
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}, "required": ["b"]}


class Broken:
    """Speaks like a pydantic model, and fails."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        raise TypeError("no schema for a callable")


def test_a_schema_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(SCHEMA, indent=2), "utf-8-sig")
    forms = [SCHEMA, json.dumps(SCHEMA), json.dumps(SCHEMA, indent=1), file, str(file)]
    assert {read_schema(form) for form in forms} == {json.dumps(SCHEMA)}


def test_real_pydantic_models() -> None:
    class Keeper(BaseModel):
        name: str
        hens: int

    assert json.loads(read_schema(Keeper))["required"] == ["name", "hens"]
    assert json.loads(read_schema(TypeAdapter(list[int])))["items"] == {"type": "integer"}


@pytest.mark.parametrize("schema", [True, "true", {}, "{}"])
def test_a_schema_that_allows_everything(schema: Any, start: Started) -> None:
    assert len(start(schema=schema).forced()) == 0


def test_the_order_of_properties_stays(start: Started, tokenizer: Any) -> None:
    state = start(schema=SCHEMA, compact_json=True)
    assert b"".join(map(tokenizer.token_bytes, state.forced())).startswith(b'{"b":')


def test_grammars_are_told_apart(tmp_path: Path) -> None:
    gbnf = '# a comment\n\nroot ::= "a" | item\nitem ::= [0-9]+\n'
    lark = '// a comment\nstart: "a" | ITEM\nITEM: /[0-9]+/\n'
    for name, text in (("a.gbnf", gbnf), ("a.lark", lark)):
        (tmp_path / name).write_text(text, "utf-8")
        assert read_grammar(tmp_path / name) == read_grammar(str(tmp_path / name)) == read_grammar(text) == text


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "a"',
        'start: "a"',
        '?start: "a"',
        "%llguidance {}\nstart: /a+/",
        'start[lazy]: "a"',
        'A.2: "a"\nstart: A',
    ],
)
def test_one_line_of_grammar_is_no_file(text: str) -> None:
    assert read_grammar(text) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has nothing to follow"),
        ({"regex": "a", "schema": {}}, "schema and regex are both given"),
        ({"regex": "a", "compact_json": True}, "compact_json changes nothing without a schema"),
        ({"schema": {}, "compact_json": "much"}, "compact_json is 'much'"),
        (
            {"schema": "no/such.json"},
            "sampler grammar, schema: there is no file 'no/such.json'. JSON text begins with {",
        ),
        ({"schema": Path("no/such.json")}, "there is no file"),
        ({"schema": "a\0b"}, "sampler grammar, schema: "),
        ({"schema": "."}, "there is no file '.'"),
        ({"schema": '{"a": '}, "schema is not JSON"),
        ({"schema": '{"const": NaN}'}, "schema is not JSON: NaN"),
        ({"schema": {"const": float("inf")}}, "schema is not JSON"),
        ({"schema": '{"type": "string", "type": "null"}'}, "the name 'type' stands twice"),
        ({"schema": {"const": object()}}, "schema is not JSON"),
        ({"schema": "[]"}, "schema is [], but must be an object"),
        ({"schema": Broken}, "TypeError: no schema for a callable"),
        ({"schema": 7}, "schema is 7, but must be a dict, JSON text, a file or a pydantic model"),
        ({"schema": '{"const": "\\ud800"}'}, "schema holds a lone surrogate"),
        ({"schema": '{"const": 1e999}'}, "schema is not JSON: 1e999"),
        ({"regex": 7}, "regex is 7"),
        ({"regex": "\ud800"}, "regex holds a lone surrogate"),
        ({"grammar": 7}, "grammar is 7"),
        ({"grammar": "no/such.gbnf"}, "sampler grammar, grammar: there is no file"),
        ({"grammar": "hello\nworld\n"}, "grammar begins neither with a rule of GBNF"),
        ({"grammar": 'root ::= "a" x'}, "grammar is not GBNF: Rule 'x' not found"),
        ({"grammar": 'item ::= "a"'}, "grammar is not GBNF: No 'root' rule"),
        ({"grammar": 'root ::= "a'}, "grammar is not GBNF"),
        ({"grammar": 'start: "a" x'}, 'grammar cannot be used: at 1(8): unknown name: "x"'),
        ({"grammar": 'item: "a"'}, "grammar cannot be used: "),
        ({"regex": "(a"}, "regex cannot be used: .*unclosed group"),
        ({"regex": "(?=a)b"}, "regex cannot be used: .*look-around"),
        ({"regex": r"(a)\\1".replace("\\\\", "\\")}, "regex cannot be used: .*backreferences"),
        ({"grammar": 'start: a\na: "x" a'}, "cannot go on"),
        ({"grammar": 'start: %json {"x-guidance": {"lenient": true}, "not": {}}'}, "grammar holds x-guidance"),
    ],
)
def test_refusals(options: dict[str, Any], message: str, start: Started) -> None:
    with pytest.raises(SamplerError) as caught:
        start(**options)
    before, _, after = message.partition(".*")
    assert before in str(caught.value)
    assert after in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "string"}}, "not at #: "),
        ({"properties": {"a/b": {"type": "array", "uniqueItems": True}}}, "uniqueItems at #/properties/a~1b: "),
        ({"items": {"format": "iri", "type": "string"}}, "format at #/items: Unknown format: iri"),
        ({"oneOf": [{"type": "string"}, {"minLength": 3}]}, "oneOf at #: "),
        ({"if": {}, "then": {}, "type": "string"}, "if at #, then at #: "),
        ({"type": "object", "dependencies": {"a": ["b"]}}, "dependencies at #: "),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired at #: "),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames at #: "),
        ({"type": "array", "contains": {}}, "contains at #: "),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties at #: "),
        ({"$dynamicRef": "#a"}, "$dynamicRef at #: "),
        ({"type": "string", "pattern": "(?!a)b"}, "pattern at #: "),
        ({"type": "string", "pattern": r"(a)\1"}, "pattern at #: "),
        ({"$ref": "https://example.org/x.json"}, "$ref at #: "),
        ({"$ref": "file:///etc/hostname"}, "$ref at #: "),
        ({"$ref": "#/nowhere"}, "$ref at #: "),
        ({"allOf": [{"$ref": "#"}, {"type": "object"}]}, "$ref at #/allOf/0: "),
        ({"patternProperties": {"a": {}, "b": {}}, "type": "object"}, "patternProperties at #: "),
        ({"type": "strin"}, "type at #: "),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable"),
        ({"enum": []}, "Unsatisfiable"),
        (False, "not at #: "),
        ({"$ref": "#"}, "cannot go on"),
        ({"type": "object", "minProperties": 2}, "minProperties at #: "),
        ({"items": {"const": "a\0b"}}, "const at #/items: it needs U+0000"),
        ({"enum": [1, {"a\x7f": [None]}]}, "enum at #: it needs U+007F"),
        ({"type": "string", "pattern": "^a\x01b$"}, "pattern at #: it needs U+0001"),
        ({"type": "string", "pattern": r"^a\x0b$"}, "pattern at #: it needs U+000B"),
        ({"type": "string", "pattern": r"^a[\v]b$"}, "pattern at #: it needs U+000B"),
        ({"type": "string", "pattern": r"^a[\x01-\x01]b$"}, "pattern at #: it needs U+0001"),
        ({"type": "string", "pattern": r"^a[\x00-\x1f&&[\x01]]b$"}, "pattern at #: it needs U+0000"),
        ({"type": "string", "pattern": r"^a[^\u{1}-\u{10ffff}]b$"}, "pattern at #: it needs U+0001"),
        ({"type": "object", "patternProperties": {r"^\u0002$": {}}}, "patternProperties at #: it needs U+0002"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "not at #: "),
        ({"x-guidance": {"coerce_one_of": True}, "oneOf": [{"type": "string"}, {"minLength": 3}]}, "oneOf at #: "),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_named(schema: Any, message: str, start: Started) -> None:
    with pytest.raises(SamplerError) as caught:
        start(schema=schema)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 'a\n\t\b\f\r\\"/é\u2028\x80'},
        {"type": "object", "properties": {"a\0": {"type": "null"}}, "required": ["a\0"], "additionalProperties": False},
        {"type": "string", "pattern": r"^[^\x00-\x1f]{1,4}$"},
        {"type": "string", "pattern": r"^[\x01c]\t[\]\\]$"},
    ],
)
def test_what_json_can_write_is_not_refused(schema: dict[str, Any], start: Started, follow: Follow) -> None:
    jsonschema.validate(json.loads(follow(start(schema=schema), 1)[1]), schema)


def nested(n: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(n):
        schema = {"items": schema}
    return schema


def chain(n: int) -> dict[str, Any]:
    """Definitions of which each needs the next."""
    defs = {f"d{i}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(n)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{n}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": {"description": "x" * MAX_TEXT_BYTES}}, f"more than the {MAX_TEXT_BYTES} allowed"),
        ({"schema": '{"description": "' + "x" * MAX_TEXT_BYTES + '"}'}, f"more than the {MAX_TEXT_BYTES} allowed"),
        (
            {"schema": {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}}},
            f"{MAX_PROPERTIES + 1} properties",
        ),
        ({"schema": {"const": "x" * MAX_CONSTANT_BYTES}}, "bytes of constants"),
        ({"schema": {"enum": ["x" * 1000 + str(i) for i in range(70)]}}, "bytes of constants"),
        ({"schema": nested(MAX_DEPTH + 1)}, "nested deeper"),
        ({"schema": nested(5_000)}, "nested"),
        ({"schema": '{"items":' * 20_000 + "{}" + "}" * 20_000}, "nested too deep"),
        ({"schema": {"allOf": [{"type": "string"}] * 30_000}}, f"more than the {MAX_TEXT_BYTES} allowed"),
        (
            {
                "schema": {
                    "allOf": [{"anyOf": [{"properties": {f"a{i}": {"const": j}}} for j in range(4)]} for i in range(12)]
                }
            },
            "too large",
        ),
        ({"regex": "(" * 60_000 + "a" + ")" * 60_000}, "more than"),
        ({"regex": "(" * 30_000 + "a" + ")" * 30_000}, "regex cannot be used"),
        ({"grammar": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000}, "nested too deep"),
        ({"grammar": "start: " + "(" * 60_000 + '"a"' + ")" * 60_000}, "nested"),
        ({"grammar": 'root ::= "a" r0\n' + "".join(f'r{i} ::= "a" r{i + 1}\n' for i in range(2000))}, "rules"),
        ({"grammar": "start: r0\n" + "".join(f'r{i}: "a" r{i + 1}\n' for i in range(MAX_RULES))}, "rules"),
        ({"grammar": 'start: "' + "x" * MAX_CONSTANT_BYTES + '"\n'}, "bytes of constants"),
        ({"grammar": "start: /x/ // " + "x" * MAX_TEXT_BYTES}, "more than"),
        ({"grammar": "start: r0\n" + "".join(f'r{i}[stop=""]: "a" r{i + 1}\n' for i in range(MAX_RULES))}, "rules"),
        ({"grammar": "start: " + "x" * 200_000}, "grammar cannot be used"),
        ({"grammar": "x" * 200_000 + "\n"}, "begins neither"),
        ({"grammar": "\n" * 200_000}, "begins neither"),
        ({"grammar": "start: A\nA: " + '"\\' * 100_000 + "\n"}, "bytes of constants"),
        ({"schema": "{" + ",".join(f'"{i}":1' for i in range(20_000)) + ',"0":2}'}, "'0' stands twice"),
    ],
)
def test_hostile(options: dict[str, Any], message: str, start: Started) -> None:
    """Refused: no crash, and no stack that overflows."""
    with pytest.raises(SamplerError) as caught:
        start(**options)
    assert message in str(caught.value)


def test_definitions_up_to_the_cap_fit_the_stack(start: Started) -> None:
    start(schema=chain(MAX_PROPERTIES))
    start(
        grammar="start: r0\n"
        + "".join(f'r{i}: "a" r{i + 1} | "b"\n' for i in range(MAX_RULES - 2))
        + f'r{MAX_RULES - 2}: "c"\n'
    )


def test_what_takes_too_long_to_compile(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that compiles goes on alone; while as many as may be are on their way, others are refused."""
    start(regex="before")
    may_end, compile = Event(), compiler.LLMatcher

    def slow(*given: Any, **named: Any) -> Any:
        may_end.wait(60)
        return compile(*given, **named)

    monkeypatch.setattr(compiler, "LLMatcher", slow)
    monkeypatch.setattr(compiler, "SECONDS", 0.05)
    for i in range(compiler.AT_ONCE):
        with pytest.raises(SamplerError, match=r"regex takes longer than 0\.05 s to compile"):
            start(regex=f"slow{i}")
    with pytest.raises(SamplerError, match="other grammars are still being compiled"):
        start(regex="more")
    start(regex="before")  # what was compiled once is there
    may_end.set()
    monkeypatch.setattr(compiler, "SECONDS", 60)
    start(regex="after")


def test_a_vocabulary_without_an_end(sampler: type[Grammar], tokenizer: Any) -> None:
    class Endless:
        n_vocab, end_tokens = 5, frozenset[int]()

    with pytest.raises(SamplerError, match="no token that ends a text"):
        sampler(regex="a").start(SamplerContext(5, (), Endless()))  # type: ignore[arg-type]
    with pytest.raises(SamplerError, match="needs the model's tokenizer"):
        sampler(regex="a").start(SamplerContext(5))
    with pytest.raises(SamplerError, match=r"the tokenizer has \d+ tokens, and the model logits for 5"):
        sampler(regex="a").start(SamplerContext(5, (), tokenizer))


def test_a_schema_inside_lark_is_as_strict_as_one_by_itself(start: Any, tokenizer: Any) -> None:
    lark = 'start: "%json {" %json {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}\n'
    state = start(grammar=lark)
    marker = tokenizer.encode("\n", add_special=False)  # before which SentencePiece puts its space
    for token in tokenizer.encode('\n%json {{"a"', add_special=False)[len(marker) :]:
        logits = np.zeros(tokenizer.n_vocab, np.float32)
        state.apply(logits)
        assert logits[token] > -np.inf
        state.accept(token)
    with pytest.raises(SamplerError, match="uniqueItems"):
        start(grammar='start: %json {"type": "array", "uniqueItems": true}\n')
    with pytest.raises(SamplerError, match="not JSON"):
        start(grammar="start: %json {nonsense\n")
