"""What a user gives for a schema, a regular expression or a grammar, as checked text.

Text from strangers is never taken for the name of a file: that is only a single line that does not begin like what is
asked for, and ``Path`` objects. Whoever serves requests gives schemas as dicts, and ends a grammar with a line end.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from sis_core.errors import SamplerError
from sis_grammar.caps import MAX_TEXT_BYTES, WHERE, check_grammar, check_regex, check_schema, check_size

# After comments and blank lines: `name ::=` is GBNF; `name:`, `name.1:`, `name[…]:` or a directive is Lark.
_COMMENTS = r"(?:\s|\#[^\n]*(?:\n|\Z)|//[^\n]*(?:\n|\Z))*"
GBNF = re.compile(_COMMENTS + r"[\w-]+[ \t]*::=")
LARK = re.compile(_COMMENTS + r"(?:%\w+|[?!]*[A-Za-z_]\w*(?:\.\d+)?(?:\{[^}\n]*\})?(?:\[[^\n]*\])?\s*:)")


def read_schema(given: Any) -> str:
    """A JSON schema as JSON text, its properties in their order.

    Args:
        given: a dict or bool, JSON text, the name or ``Path`` of a file, a pydantic model or a ``TypeAdapter``.

    Raises:
        SamplerError: it is none of these, no JSON, or over one of the `caps`; the message names ``schema``.
    """
    if isinstance(given, str | os.PathLike):
        text = str(given) if isinstance(given, os.PathLike) else given
        if isinstance(given, os.PathLike) or not (
            "\n" in text or text.lstrip()[:1] in "{[" or text in ("true", "false")
        ):
            text = _read_file("schema", text, "JSON text begins with {")
        return check_schema(_parsed(text))
    if isinstance(given, Mapping | bool):
        made: Any = given
    else:
        made = _from_pydantic(given)
    try:
        text = json.dumps(made, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError) as error:
        raise SamplerError(f"schema is not JSON: {error}", where=WHERE) from None
    return check_schema(_parsed(text))


def read_regex(given: Any) -> str:
    """A regular expression; SamplerError when it is not text or too long."""
    if not isinstance(given, str):
        raise SamplerError(f"regex is {given!r:.60}, but must be text", where=WHERE)
    return check_regex(given)


def read_grammar(given: Any) -> str:
    """The text of a grammar in GBNF or Lark.

    Args:
        given: the text, or the name or ``Path`` of a file.
    """
    if not isinstance(given, str | os.PathLike):
        raise SamplerError(f"grammar is {given!r:.60}, but must be text or a file", where=WHERE)
    text = str(given) if isinstance(given, os.PathLike) else given
    if isinstance(given, os.PathLike) or not ("\n" in text or GBNF.match(text) or LARK.match(text)):
        text = _read_file("grammar", text, "a grammar begins with `root ::=` or `start:`")
    if not (GBNF.match(text) or LARK.match(text)):
        raise SamplerError(
            "grammar begins neither with a rule of GBNF (root ::= …) nor with one of Lark (start: …)",
            where=WHERE,
        )
    return check_grammar(text)


def _read_file(option: str, name: str, hint: str) -> str:
    where = f"{WHERE}, {option}"
    path = Path(name)
    try:
        if not path.is_file():
            raise SamplerError(f"there is no file {name!r:.200}", where=where, fix=f"{hint}, else it is a file's name")
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise SamplerError(f"{name!r} is over the limit of {MAX_TEXT_BYTES} bytes", where=where)
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise SamplerError(f"{name!r:.200} cannot be read: {error}", where=where) from None


def _from_pydantic(given: Any) -> Any:
    """The schema that a pydantic model (a class) or a ``TypeAdapter`` makes of itself."""
    for method in ("model_json_schema", "json_schema"):
        if callable(make := getattr(given, method, None)):
            try:
                return make()
            except Exception as error:
                raise SamplerError(
                    f"schema: {method} of {given!r:.60} failed: {type(error).__name__}: {error}",
                    where=WHERE,
                ) from error
    raise SamplerError(
        f"schema is {given!r:.60}, but must be a dict, JSON text, a file or a pydantic model", where=WHERE
    )


def _parsed(text: str) -> Any:
    check_size("schema", text, MAX_TEXT_BYTES)  # before it is read
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise SamplerError(f"schema is not JSON: {error}", where=WHERE) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice!r:.60} stands twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name:.40} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_constant(digits)


def _too_deep() -> SamplerError:
    return SamplerError("schema is nested too deep", where=WHERE)
