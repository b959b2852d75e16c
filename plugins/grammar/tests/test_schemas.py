"""Random schemas and random texts: whatever comes out is what `jsonschema` calls valid, and always comes to an end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from sis_core.sampler import SamplerState

Started = Callable[..., SamplerState]
Follow = Callable[[SamplerState, int], tuple[list[int], bytes]]
N_SCHEMAS = 250  # for each of two vocabularies

NAMES = ["steps", "the keeper", "Größe", "a", "a/b", "x~y", "isn't", '"quoted"', "日本", "", "line\nend", "$ref"]
PATTERNS = ["^[a-z]{2,6}$", "^[A-Z][a-z]* [0-9]{1,3}$", "^(keeper|lighthouse)s?$", "hen", r"^\d{4}-\d{2}$"]
FORMATS = ["date", "time", "date-time", "ipv4", "uuid", "email", "hostname"]


class Schemas:
    """Random schemas whose texts are bounded: strings, arrays and maps have a greatest length."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.defs: dict[str, Any] = {}

    def schema(self) -> dict[str, Any]:
        made = self.value(3)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "$defs": self.defs}

    def value(self, depth: int) -> dict[str, Any]:
        simple = [self.string, self.number, self.integer, self.constant, self.pattern, self.format, self.types]
        nested = [self.object, self.object, self.array, self.prefix, self.any_of, self.reference, self.map, self.all_of]
        return self.chance.choice(simple if depth == 0 else simple + nested + nested)(depth - 1)

    def string(self, depth: int) -> dict[str, Any]:
        least = self.chance.randrange(4)
        return {"type": "string", "minLength": least, "maxLength": least + self.chance.randrange(8)}

    def number(self, depth: int) -> dict[str, Any]:
        low = round(self.chance.uniform(-100, 100), self.chance.randrange(3))
        keyword = self.chance.choice(["minimum", "exclusiveMinimum"])
        return {"type": "number", keyword: low, "maximum": low + self.chance.choice([0.5, 1, 17.25, 1000])}

    def integer(self, depth: int) -> dict[str, Any]:
        low = self.chance.randrange(-1000, 1000)
        made = {"type": "integer", "minimum": low, "exclusiveMaximum": low + self.chance.randrange(20, 500)}
        return made | ({"multipleOf": self.chance.choice([2, 5, 7])} if self.chance.random() < 0.3 else {})

    def constant(self, depth: int) -> dict[str, Any]:
        values = [None, True, 3, -2.5, "keeper", '漢字\t"', [1, "a"], {"a": [None]}, "", 1e3]
        if self.chance.random() < 0.3:
            return {"const": self.chance.choice(values)}
        return {"enum": self.chance.sample(values, self.chance.randrange(1, 5))}

    def pattern(self, depth: int) -> dict[str, Any]:
        return {"type": "string", "pattern": self.chance.choice(PATTERNS), "maxLength": 30}

    def format(self, depth: int) -> dict[str, Any]:
        return {"type": "string", "format": self.chance.choice(FORMATS), "maxLength": 60}

    def types(self, depth: int) -> dict[str, Any]:
        return {"type": self.chance.sample(["null", "boolean", "integer", "string"], 2), "maxLength": 9, "minimum": 0}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.chance.sample(NAMES, self.chance.randrange(5))
        required = self.chance.sample(names, self.chance.randrange(len(names) + 1))
        properties = {name: self.value(depth) for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def array(self, depth: int) -> dict[str, Any]:
        least = self.chance.randrange(3)
        return {
            "type": "array",
            "items": self.value(depth),
            "minItems": least,
            "maxItems": least + self.chance.randrange(3),
        }

    def prefix(self, depth: int) -> dict[str, Any]:
        items = [self.value(depth) for _ in range(self.chance.randrange(1, 3))]
        return {
            "type": "array",
            "prefixItems": items,
            "items": False,
            "minItems": self.chance.randrange(len(items) + 1),
        }

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.value(depth) for _ in range(self.chance.randrange(1, 4))]}

    def all_of(self, depth: int) -> dict[str, Any]:
        low = self.chance.randrange(9)
        return {"allOf": [{"type": "string", "minLength": low}, {"maxLength": low + 4}]}

    def reference(self, depth: int) -> dict[str, Any]:
        name = self.chance.choice(["one", "two/x", "three~"])
        if name not in self.defs:
            self.defs[name] = self.value(0)
        return {"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")}

    def map(self, depth: int) -> dict[str, Any]:
        made = self.value(depth)
        least = self.chance.randrange(2)
        if self.chance.random() < 0.5:
            return {"type": "object", "additionalProperties": made, "minProperties": least, "maxProperties": least + 2}
        keys = {"^k[a-z]{1,4}$": made, "^[0-9]{1,3}$": {"type": "boolean"}}
        return {"type": "object", "patternProperties": keys, "additionalProperties": False, "maxProperties": 3}


def checked(schema: dict[str, Any], text: bytes) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    found = json.loads(text)
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(found)


@pytest.mark.parametrize("part", range(5))
def test_every_text_of_random_schemas_is_valid(part: int, start: Started, follow: Follow) -> None:
    for seed in range(part * N_SCHEMAS // 5, (part + 1) * N_SCHEMAS // 5):
        schema = Schemas(seed).schema()
        _, text = follow(start(schema=schema, compact_json=seed % 2 == 0), seed)
        checked(schema, text)
