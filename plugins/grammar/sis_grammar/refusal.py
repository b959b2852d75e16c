"""What to say when a grammar cannot be compiled: the keyword of a schema, where it stands, and llguidance's reason."""

from __future__ import annotations

import json
import re

from sis_core.errors import SamplerError
from sis_grammar.caps import WHERE, pointer, walk
from sis_grammar.definition import Definition
from sis_grammar.place import first_lines

# How llguidance's messages begin, and the keywords that they may be about.
KEYWORDS = (
    (r"oneOf constraints", "oneOf"),
    (r"Unknown format", "format"),
    (r"regex parse error|Unable to determine if regex", "pattern", "patternProperties"),
    (r"patternProperty", "patternProperties"),
    (r"min/maxProperties", "minProperties", "maxProperties"),
    (r"Schema intersection", "allOf"),
    (r"circular references|Resource|Pointer|Definition not found", "$ref"),
    (r"Invalid type", "type"),
    (
        r"Failed to generate regex for (?:float|integer|int)",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
    ),
)
MOST_PLACES = 3


def refusal(definition: Definition, message: str) -> SamplerError:
    """The error for a definition that llguidance refused with ``message``."""
    reason = first_lines(message)
    if definition.option != "schema":
        return SamplerError(f"{definition.option} cannot be used: {reason}", where=WHERE)
    keywords = ", ".join(
        f"{keyword} at {where}" for keyword in _keywords(reason) if (where := _places(definition, keyword))
    )
    return SamplerError(
        f"schema cannot be enforced: {f'{keywords}: ' if keywords else ''}{reason}",
        where=WHERE,
        fix="leave the keyword out, or say the same with others" if keywords else "",
    )


def _keywords(reason: str) -> list[str]:
    if listed := re.match(r"Unimplemented keys: (\[[^\]]*\])", reason):
        return list(json.loads(listed[1]))
    return [keyword for pattern, *keywords in KEYWORDS if re.match(pattern, reason) for keyword in keywords]


def _places(definition: Definition, keyword: str) -> str:
    """JSON pointers of the subschemas that have the keyword, the first few."""
    found = [
        pointer(at)
        for at, value in walk(json.loads(definition.given))
        if isinstance(value, dict) and keyword in value and at[-1:] not in (("properties",), ("const",))
    ]
    return " and ".join(found[:MOST_PLACES]) + ("" if len(found) <= MOST_PLACES else f" and {len(found) - 3} more")
