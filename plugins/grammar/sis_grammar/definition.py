"""A grammar in the form that llguidance compiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from sis_core.errors import SamplerError
from sis_grammar.caps import check_grammar
from sis_grammar.exclusive import with_exclusive_any_of
from sis_grammar.given import GBNF

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# White space that ends: nothing, a space, or a line end and what indents the next line.
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
    """What is compiled: the ``text`` for llguidance, the ``option`` it comes from, and what was ``given`` for that."""

    option: Literal["grammar", "schema", "regex"]
    given: str
    text: str


def of_schema(schema: str, *, compact: bool) -> Definition:
    """A JSON schema, strictly; ``compact`` for no white space between parts."""
    options = JSON_OPTIONS.copy()
    if compact:
        options["whitespace_flexible"] = False
    else:
        options["whitespace_pattern"] = WHITE_SPACE
    text = json.dumps(with_exclusive_any_of(json.loads(schema)), ensure_ascii=False)
    return Definition("schema", schema, LLMatcher.grammar_from_json_schema(text, overrides=options))


def of_regex(regex: str) -> Definition:
    return Definition("regex", regex, LLMatcher.grammar_from_regex(regex))


def of_grammar(grammar: str) -> Definition:
    """GBNF where it begins with a rule of it, else Lark; SamplerError for GBNF that cannot be read."""
    if not GBNF.match(grammar):
        return Definition("grammar", grammar, LLMatcher.grammar_from_lark(grammar))
    try:
        lark = gbnf_to_lark(grammar)
    except RecursionError:
        raise SamplerError("grammar is nested too deep", where="sampler grammar") from None
    except Exception as error:
        raise SamplerError(f"grammar is not GBNF: {error}", where="sampler grammar") from None
    return Definition("grammar", grammar, LLMatcher.grammar_from_lark(check_grammar(lark)))
