"""`oneOf` becomes `anyOf` where its branches exclude each other, and only there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field
from sis_grammar.exclusive import with_exclusive_any_of

from sis_core.sampler import SamplerState

Started = Callable[..., SamplerState]
Follow = Callable[[SamplerState, int], tuple[list[int], bytes]]


class Cat(BaseModel, extra="forbid"):
    """Told apart by its kind."""

    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Hen(BaseModel, extra="forbid"):
    """Told apart by its kind."""

    kind: Literal["hen"]
    eggs: int = Field(ge=0, le=99)


class Yard(BaseModel, extra="forbid"):
    """A union that pydantic writes with `oneOf`, references and a discriminator."""

    animals: list[Cat | Hen] = Field(max_length=3)
    first: Cat | Hen = Field(discriminator="kind")


NAMED = {"$defs": {"a": {"type": "object"}, "text": {"$ref": "#/$defs/b~1c"}, "b/c": {"type": "string"}}}
APART = [
    [{"type": "null"}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/text"}],
    [{"const": 1}, {"enum": [2, "1", None]}, {"type": "boolean"}],
    [{"allOf": [{"type": "string"}, {"minLength": 2}]}, {"type": ["integer", "null"]}],
    [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "array"}],
    [
        {"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]},
        {"type": "object", "properties": {"k": {"enum": ["y", "z"]}}, "required": ["k"]},
    ],
    [
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        {"type": "object", "required": ["b"]},
    ],
]
NOT_APART = [
    [{"type": "integer"}, {"type": "number"}],
    [{"const": 1}, {"const": 1.0}],
    [{"type": "string"}, {"minLength": 3}],
    [{"$ref": "#/$defs/nowhere"}, {"type": "null"}],
    [{"$ref": "https://example.org/a"}, {"type": "null"}],
    [{"$ref": "#/$defs/a", "type": "null"}, {"type": "object", "required": ["x"]}],
    [{"type": "any"}, {"type": "null"}],
    [
        {"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]},
        {"type": "object", "properties": {"k": {"const": "y"}}},
    ],
    [
        {"properties": {"k": {"const": "x"}}, "required": ["k"]},
        {"properties": {"k": {"const": "y"}}, "required": ["k"]},
    ],
    [
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False, "patternProperties": {"b": {}}},
        {"type": "object", "required": ["b"]},
    ],
    [{"const": [1]}, {"const": [2]}],
]


@pytest.mark.parametrize("branches", APART)
def test_apart(branches: list[Any]) -> None:
    made = with_exclusive_any_of({**NAMED, "items": {"oneOf": branches}})
    assert made == {**NAMED, "items": {"anyOf": branches}}


@pytest.mark.parametrize("branches", NOT_APART)
def test_not_apart(branches: list[Any]) -> None:
    schema = {**NAMED, "oneOf": branches}
    assert with_exclusive_any_of(schema) == schema


@pytest.mark.parametrize("key", ["$id", "id"])
def test_references_are_not_followed_where_a_part_has_an_identity(key: str) -> None:
    schema = {
        "$defs": {"a": {key: "https://example.org/a", "type": "object"}},
        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}],
    }
    assert with_exclusive_any_of(schema) == schema


def test_what_is_no_schema_stays() -> None:
    data = {"oneOf": [{"type": "string"}, {"type": "null"}]}
    for schema in ({"const": data}, {"enum": [data]}, {"default": data}, {**data, "anyOf": [{}]}):
        assert with_exclusive_any_of(schema) == schema


def test_many_nested_choices_are_given_up() -> None:
    choice: dict[str, Any] = {"minLength": 1}
    for _ in range(11):
        choice = {"anyOf": [choice, {**choice, "title": "again"}]}
    schema = {"oneOf": [choice, {"anyOf": [choice, choice]}]}
    assert with_exclusive_any_of(schema) == schema


AREA = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in ("radius", "length", "width")},
    "additionalProperties": False,
    "oneOf": [{"required": ["radius"]}, {"required": ["length", "width"]}],
}


@pytest.mark.parametrize(
    "sets", [["a", "b"], ["a", "bc"], ["ab", "bc", "ac"], ["a", "ab"], ["a", "b", "c", "abc"], ["", "a"], ["a", "a"]]
)
def test_one_set_of_names_means_the_same(sets: list[str]) -> None:
    schema = {"type": "object", "oneOf": [{"required": list(names)} for names in sets]}
    made = with_exclusive_any_of(schema)
    before, after = map(jsonschema.Draft202012Validator, (schema, made))
    chance = random.Random(3)
    values = [random_value(chance) for _ in range(300)]
    assert [before.is_valid(value) for value in values] == [after.is_valid(value) for value in values]
    assert ("oneOf" in made) == (not any(before.is_valid(value) for value in values))


def test_one_set_of_names_is_for_objects() -> None:
    """Any other value satisfies both branches."""
    schema = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert with_exclusive_any_of(schema) == schema
    mixed = {"type": ["object", "null"], **schema}
    assert with_exclusive_any_of(mixed) == mixed


def test_an_area_by_one_set_of_names(start: Started, follow: Follow) -> None:
    texts = [follow(start(schema=AREA, compact_json=True), seed)[1] for seed in range(12)]
    for text in texts:
        jsonschema.validate(json.loads(text), AREA)
    assert {b"radius" in text for text in texts} == {True, False}


def random_branch(chance: random.Random, depth: int = 2) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if chance.random() < 0.7:
        made["type"] = chance.choice(["object", "object", "string", "integer", "number", "null", ["object", "null"]])
    if chance.random() < 0.3:
        made["enum"] = chance.sample([1, 1.0, "a", "b", None, True], 2)
    if depth and chance.random() < 0.8:
        made["properties"] = {name: random_branch(chance, depth - 1) for name in chance.sample("abc", 2)}
    if chance.random() < 0.5:
        made["required"] = chance.sample("abc", chance.randrange(3))
    if chance.random() < 0.3:
        made["additionalProperties"] = False
    if depth and chance.random() < 0.2:
        made[chance.choice(["anyOf", "allOf", "oneOf"])] = [random_branch(chance, depth - 1) for _ in range(2)]
    if chance.random() < 0.15:
        made["$ref"] = chance.choice(["#/$defs/a", "#/$defs/text"])
    return made


def random_value(chance: random.Random, depth: int = 2) -> Any:
    if depth and chance.random() < 0.7:
        return {name: random_value(chance, depth - 1) for name in chance.sample("abc", chance.randrange(4))}
    return chance.choice([None, True, 1, 1.0, 2, "a", "b", []])


def test_no_value_satisfies_two_branches_that_are_called_apart() -> None:
    chance = random.Random(12)
    values = [random_value(chance) for _ in range(150)]
    n_apart = 0
    for _ in range(400):
        schema = {**NAMED, "oneOf": [random_branch(chance), random_branch(chance)]}
        if "anyOf" not in with_exclusive_any_of(schema):
            continue
        n_apart += 1
        branches = [jsonschema.Draft202012Validator({**NAMED, **branch}) for branch in schema["oneOf"]]
        assert not [value for value in values if all(branch.is_valid(value) for branch in branches)]
    assert n_apart > 100


def test_a_discriminated_union_of_pydantic(start: Started, follow: Follow) -> None:
    assert '"oneOf"' in json.dumps(Yard.model_json_schema())
    for seed in range(6):
        _, text = follow(start(schema=Yard), seed)
        Yard.model_validate_json(text)
