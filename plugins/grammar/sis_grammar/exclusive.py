"""``oneOf`` as ``anyOf`` where both mean the same.

That is so where no value can satisfy two of its branches. llguidance decides this for branches that stand there in
full. This looks through ``$ref`` as well, so that a value or null, and unions told apart by a property (what pydantic
calls discriminated), can be enforced. It only ever proves that two schemas exclude each other from keywords that both
must satisfy; where it finds no proof, ``oneOf`` stays.

Branches that only say which names are required are made to exclude each other: each forbids a name of every other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from sis_grammar.caps import walk
from sis_grammar.rewriting import Schema, rewritten

TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})  # an integer is a number
MAX_DEPTH = 12
MAX_CHOICES = 64
MAX_COMPARED = 5_000  # pairs of schemas in one document


def with_exclusive_any_of(schema: Schema) -> Schema:
    """A copy of ``schema`` in which each ``oneOf`` whose branches exclude each other is an ``anyOf``."""
    known = _Definitions(schema)

    def change(part: Schema) -> Schema:
        branches = part.get("oneOf")
        if not isinstance(branches, list) or "anyOf" in part:
            return part
        exclusive = branches if known.all_apart(branches) else _one_set_of_names(part, branches)
        if not exclusive:
            return part
        return {"anyOf" if key == "oneOf" else key: inner for key, inner in (part | {"oneOf": exclusive}).items()}

    made: Schema = rewritten(schema, change)
    return made


def _one_set_of_names(schema: Schema, branches: list[Any]) -> list[Schema] | None:
    """Branches for ``anyOf`` that mean the same as ``oneOf`` with branches that only require names, else None."""
    sets: list[frozenset[str]] = []
    for branch in branches:
        if not isinstance(branch, dict) or not branch.keys() <= {"required", "type", "title", "description"}:
            return None
        names = branch.get("required")
        if "object" not in (schema.get("type"), branch.get("type")) or branch.get("type", "object") != "object":
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        sets.append(frozenset(names))
    made: list[Schema] = []
    for i, names in enumerate(sets):
        others = [sorted(other - names) for other in sets[:i] + sets[i + 1 :]]
        if math.prod(map(len, others)) > MAX_CHOICES:
            return None
        for missing in dict.fromkeys(frozenset(choice) for choice in itertools.product(*others)):
            forbidden: Schema = dict.fromkeys(sorted(missing), False)
            made.append({"type": "object", "required": sorted(names), "properties": forbidden})
    return made or None


@define
class _Facts:
    """What every value that satisfies a schema must be.

    Attributes:
        types: of these types.
        values: one of these scalars, as `_scalar` writes them; None where they are not listed.
        required: an object has these names, if it is one.
        properties: by name, schemas that its value satisfies, if it is there.
        names: sets of names of which each object's names are a part.
    """

    types: frozenset[str] = TYPES
    values: frozenset[tuple[str, Any]] | None = None
    required: set[str] = field(factory=set)
    properties: dict[str, list[Any]] = field(factory=dict)
    names: list[frozenset[str]] = field(factory=list)


class _Definitions:
    """A schema document, in which references are followed."""

    def __init__(self, document: Schema) -> None:
        self._document, self._n_compared = document, 0
        # Where a part has an identity of its own, a reference in it starts there: none are followed then.
        self._plain = not any(
            at and isinstance(value, dict) and any(isinstance(value.get(key), str) for key in ("$id", "id"))
            for at, value in walk(document)
        )

    def all_apart(self, branches: list[Any]) -> bool:
        """Whether no value satisfies two of the branches."""
        pairs = ((a, b) for i, a in enumerate(branches) for b in branches[:i])
        return all(self._apart(a, b, MAX_DEPTH) for a, b in pairs)

    def _apart(self, one: Any, other: Any, depth: int) -> bool:
        self._n_compared += 1
        if depth == 0 or self._n_compared > MAX_COMPARED:
            return False
        if self._facts_apart(self._facts(one), self._facts(other), depth):
            return True
        for a, b in ((one, other), (other, one)):
            for part in self._parts(a):
                for key in ("anyOf", "oneOf"):
                    choices = part.get(key)
                    if isinstance(choices, list) and all(self._apart(choice, b, depth - 1) for choice in choices):
                        return True
        return False

    def _facts_apart(self, one: _Facts, other: _Facts, depth: int) -> bool:
        common = one.types & other.types
        if not common:
            return True
        if one.values is not None and other.values is not None:
            return one.values.isdisjoint(other.values)
        if common != {"object"}:
            return False
        for a, b in ((one, other), (other, one)):
            if any(not a.required <= names for names in b.names):
                return True
        return any(
            self._apart(a, b, depth - 1)
            for name in one.required & other.required
            for a in one.properties.get(name, ())
            for b in other.properties.get(name, ())
        )

    def _facts(self, schema: Any) -> _Facts:
        facts = _Facts()
        for part in self._parts(schema):
            if (types := _types(part)) is not None:
                facts.types &= types
            if (values := _values(part)) is not None:
                facts.values = values if facts.values is None else facts.values & values
                facts.types &= {kind for kind, _ in values}
            if isinstance(required := part.get("required"), list):
                facts.required |= {name for name in required if isinstance(name, str)}
            properties = part.get("properties", {})
            if isinstance(properties, dict):
                for name, inner in properties.items():
                    facts.properties.setdefault(name, []).append(inner)
                if part.get("additionalProperties") is False and "patternProperties" not in part:
                    facts.names.append(frozenset(properties))
        return facts

    def _parts(self, schema: Any) -> Iterator[Schema]:
        """The schemas that a value must satisfy all of to satisfy ``schema``."""
        waiting, n_seen = [schema], 0
        while waiting and (n_seen := n_seen + 1) <= 64:
            part = waiting.pop()
            if not isinstance(part, dict):
                continue
            if "$ref" in part:  # what stands beside it counts in some drafts only
                waiting.append(self._target(part["$ref"]))
                continue
            yield part
            if isinstance(inner := part.get("allOf"), list):
                waiting += inner

    def _target(self, reference: Any) -> Any:
        if not self._plain or not isinstance(reference, str) or not reference.startswith("#/") or "%" in reference:
            return None
        found: Any = self._document
        for key in reference[2:].split("/"):
            found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _types(schema: Schema) -> frozenset[str] | None:
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list):
        return None
    found = frozenset("number" if name == "integer" else name for name in names if isinstance(name, str))
    return found if len(found) and found <= TYPES else None


def _values(schema: Schema) -> frozenset[tuple[str, Any]] | None:
    """The scalars that ``const`` or ``enum`` list; None where there is no list, or other values in it."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or any(isinstance(value, dict | list) for value in listed):
        return None
    return frozenset(map(_scalar, listed))


def _scalar(value: Any) -> tuple[str, Any]:
    if value is None:
        return ("null", None)
    if isinstance(value, bool):
        return ("boolean", value)
    return ("string", value) if isinstance(value, str) else ("number", value)
