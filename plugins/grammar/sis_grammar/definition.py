"""A grammar in the form that llguidance compiles."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from sis_core.errors import SamplerError
from sis_grammar.caps import WHERE, check_grammar, check_schema
from sis_grammar.dates import with_dates
from sis_grammar.exclusive import with_exclusive_any_of
from sis_grammar.given import GBNF

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# White space that ends: nothing, a space, or a line end and what indents the next line.
_INLINE_SCHEMA = re.compile(r'"(?:\\.|[^"\\\n])*+"?|(%json)\s*')
WHITE_SPACE = r"( |\n[ \t]{0,40})"
JSON_OPTIONS: JsonCompileOptions = {
    "coerce_one_of": False,
    "lenient": False,
    # Without \u a name has one spelling: {"b": 1, "\u0062": null} would be b twice.
    "json_allowed_escapes": 'nrbtf\\"',
    "json_allow_general_unicode_escapes": False,
}


@frozen
class Definition:
    """What a text has to follow: the option of the sampler that says so, and what was given for it.

    Attributes:
        compact: no white space between the parts of JSON.
    """

    option: Literal["grammar", "schema", "regex"]
    given: str
    compact: bool = False

    def for_llguidance(self) -> str:
        """The grammar in llguidance's own form; SamplerError for GBNF that cannot be read."""
        if self.option == "regex":
            return LLMatcher.grammar_from_regex(self.given)
        if self.option == "schema":
            return _from_schema(self.given, self.compact)
        return LLMatcher.grammar_from_lark(_from_gbnf(self.given) if GBNF.match(self.given) else _strict(self.given))


def _from_schema(schema: str, compact: bool) -> str:
    return LLMatcher.grammar_from_json_schema(_enforceable(schema), overrides=_options(compact))


def _options(compact: bool) -> JsonCompileOptions:
    options = JSON_OPTIONS.copy()
    if compact:
        options["whitespace_flexible"] = False
    else:
        options["whitespace_pattern"] = WHITE_SPACE
    return options


def _enforceable(schema: str) -> str:
    """The schema in words that llguidance enforces."""
    return json.dumps(with_dates(with_exclusive_any_of(json.loads(schema))), ensure_ascii=False)


def _strict(lark: str) -> str:
    """The grammar with every schema in it as strict as one that is given by itself. Source: llguidance's syntax.md."""
    parts, at = list[str](), 0
    for match in _INLINE_SCHEMA.finditer(lark):
        if match[1] is None or match.start() < at:
            continue
        try:
            schema, end = json.JSONDecoder().raw_decode(lark, match.end())
        except (ValueError, RecursionError) as error:
            raise SamplerError(f"grammar has a schema that is not JSON: {error}", where=WHERE) from None
        strict = {**json.loads(_enforceable(check_schema(schema))), "x-guidance": _options(False)}
        parts += [lark[at : match.end()], json.dumps(strict, ensure_ascii=False)]
        at = end
    return "".join(parts) + lark[at:]


def _from_gbnf(grammar: str) -> str:
    try:
        return check_grammar(gbnf_to_lark(grammar))
    except RecursionError:
        raise SamplerError("grammar is nested too deep", where=WHERE) from None
    except SamplerError:
        raise
    except Exception as error:
        raise SamplerError(f"grammar is not GBNF: {error}", where=WHERE) from None
