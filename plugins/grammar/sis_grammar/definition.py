"""A grammar in the form that llguidance compiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from sis_core.errors import SamplerError
from sis_grammar.caps import WHERE, check_grammar
from sis_grammar.dates import with_dates
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
        return LLMatcher.grammar_from_lark(_from_gbnf(self.given) if GBNF.match(self.given) else self.given)


def _from_schema(schema: str, compact: bool) -> str:
    options = JSON_OPTIONS.copy()
    if compact:
        options["whitespace_flexible"] = False
    else:
        options["whitespace_pattern"] = WHITE_SPACE
    text = json.dumps(with_dates(with_exclusive_any_of(json.loads(schema))), ensure_ascii=False)
    return LLMatcher.grammar_from_json_schema(text, overrides=options)


def _from_gbnf(grammar: str) -> str:
    try:
        return check_grammar(gbnf_to_lark(grammar))
    except RecursionError:
        raise SamplerError("grammar is nested too deep", where=WHERE) from None
    except SamplerError:
        raise
    except Exception as error:
        raise SamplerError(f"grammar is not GBNF: {error}", where=WHERE) from None
