"""How large a schema, a regular expression or a grammar may be, and what a schema may not ask for.

llguidance compiles on the stack and holds what it compiles in memory: what stays under these caps compiles in the stack
and the time that `compiler` gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sis_core.errors import SamplerError
from sis_grammar.unwritable import unwritable_in

MAX_TEXT_BYTES = 256 * 1024
MAX_CONSTANT_BYTES = 64 * 1024
MAX_PROPERTIES = 1000
MAX_RULES = 1000
MAX_DEPTH = 100
WHERE = "sampler grammar"
# Possessive, and whole also without its end, so that no text takes more than linear time.
RULE = re.compile(r"^[ \t]*+[?!]*+[A-Za-z_][\w-]*+(?:\.\d++)?(?:[ \t]*+:|[\[{])", re.MULTILINE)
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*+"?')
Pointer = tuple[str, ...]


def check_regex(text: str) -> str:
    """The expression itself; SamplerError when it is over `MAX_CONSTANT_BYTES`."""
    check_size("regex", text, MAX_CONSTANT_BYTES)
    return text


def check_grammar(text: str) -> str:
    """The grammar itself; SamplerError when it is too large, or switches the strictness of a schema in it off."""
    check_size("grammar", text, MAX_TEXT_BYTES)
    _check_count("grammar", "rules", len(RULE.findall(text)), MAX_RULES)
    _check_count("grammar", "bytes of constants", sum(map(len, QUOTED.findall(text))), MAX_CONSTANT_BYTES)
    if "x-guidance" in text:
        raise SamplerError("grammar holds x-guidance, which makes schemas lenient", where=WHERE, fix="leave it out")
    return text


def check_schema(schema: Any) -> str:
    """The schema as JSON text without ``x-guidance``; SamplerError when it is no schema or over a cap."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise SamplerError(f"schema is {schema!r:.60}, but must be an object, true or false", where=WHERE)
    schema = {key: value for key, value in schema.items() if key != "x-guidance"}
    n_properties = n_constants = 0
    for at, value in walk(schema):
        if len(at) > MAX_DEPTH:
            raise SamplerError(f"schema is nested deeper than {MAX_DEPTH}", where=WHERE)
        if not isinstance(value, dict):
            continue
        properties = value.get("properties")
        n_properties += len(properties) if isinstance(properties, dict) else 0
        n_constants += sum(len(json.dumps(value[key])) for key in ("enum", "const") if key in value)
        _check_count("schema", "properties", n_properties, MAX_PROPERTIES)
        _check_count("schema", "bytes of constants", n_constants, MAX_CONSTANT_BYTES)
        _check_min_properties(at, value)
        _check_writable(at, value)
    text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    check_size("schema", text, MAX_TEXT_BYTES)
    return text


def check_size(option: str, text: str, most: int) -> None:
    """SamplerError for a text of more than ``most`` bytes, or with a lone surrogate."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise SamplerError(f"{option} holds a lone surrogate, which is no text", where=WHERE) from None
    _check_count(option, "bytes", size, most)


def walk(value: Any) -> Iterator[tuple[Pointer, Any]]:
    """Every value inside a JSON value, with the keys and indices that lead to it, without recursion."""
    waiting: list[tuple[Pointer, Any]] = [((), value)]
    while waiting:
        at, value = waiting.pop()
        yield at, value
        if len(at) > MAX_DEPTH:
            continue
        if isinstance(value, dict):
            waiting += [((*at, key), inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*at, str(i)), inner) for i, inner in reversed(list(enumerate(value)))]


def _check_min_properties(at: Pointer, schema: dict[str, Any]) -> None:
    """Refuse what could be met by one name written twice: only the names in ``properties`` are written once."""
    least, required = schema.get("minProperties"), schema.get("required")
    if at[-1:] in (("properties",), ("enum",), ("const",)) or not isinstance(least, int | float):
        return
    if least - (len(set(map(str, required))) if isinstance(required, list) else 0) >= 2:
        raise SamplerError(
            f"schema cannot be enforced: minProperties at {pointer(at)}: a name that is not required could be "
            "written twice",
            where=WHERE,
            fix="require the properties by name",
        )


def _check_writable(at: Pointer, schema: dict[str, Any]) -> None:
    if found := unwritable_in(schema):
        keyword, char = found
        raise SamplerError(
            f"schema cannot be enforced: {keyword} at {pointer(at)}: it needs U+{ord(char):04X}, which JSON can only "
            "write with \\u",
            where=WHERE,
        )


def pointer(at: Pointer) -> str:
    """A JSON pointer (RFC 6901) into a schema."""
    return "#" + "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in at)


def _check_count(option: str, what: str, n: int, most: int) -> None:
    if n > most:
        raise SamplerError(f"{option} has {n} {what}, more than the {most} allowed", where=WHERE)
