"""The sampler ``grammar`` and its options."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import field, frozen

from sis_core.errors import SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState
from sis_grammar.caps import WHERE
from sis_grammar.definition import Definition
from sis_grammar.given import read_grammar, read_regex, read_schema
from sis_grammar.state import GrammarState
from sis_grammar.vocabulary import Vocabularies


def _text_option(read: Any, help: str) -> Any:
    return field(default=None, converter=lambda given: None if given is None else read(given), metadata={"help": help})


@frozen
class Grammar(Sampler):
    """Forbids every token with which the text could not become what one of its options describes.

    Exactly one of ``grammar``, ``schema`` and ``regex`` is given. The text ends where the grammar does: its last token
    is an end token, unless a limit comes first. What cannot be enforced is refused when a text starts, by name.
    Masks by llguidance (Moskal et al., github.com/guidance-ai/llguidance).

    Attributes:
        vocabularies: what llguidance knows of the tokenizers; the class that the plugin registers has its own.
    """

    name = "grammar"
    order = 190
    vocabularies: ClassVar[Vocabularies]

    grammar: str | None = _text_option(
        read_grammar, "a file in GBNF or in llguidance's Lark; from Python also its text"
    )
    schema: str | None = _text_option(
        read_schema, "a file with a JSON schema, or its text; from Python also a dict or a pydantic model"
    )
    regex: str | None = _text_option(read_regex, "a regular expression for the whole text, in Rust's syntax")
    compact_json: bool = field(default=False, metadata={"help": "with a schema: no white space between the parts"})

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.compact_json, bool):
            raise SamplerError(f"compact_json is {self.compact_json!r}, but must be true or false", where=WHERE)
        given = [name for name in ("grammar", "schema", "regex") if getattr(self, name) is not None]
        if len(given) != 1:
            raise SamplerError(
                f"{' and '.join(given)} are both given" if given else "has nothing to follow",
                where=WHERE,
                fix="give one of grammar, schema and regex",
            )
        if self.compact_json and self.schema is None:
            raise SamplerError("compact_json changes nothing without a schema", where=WHERE, fix="leave it out")

    @property
    def definition(self) -> Definition:
        """What is given."""
        if self.schema is not None:
            return Definition("schema", self.schema, self.compact_json)
        return Definition("regex", self.regex) if self.regex is not None else Definition("grammar", self.grammar or "")

    def start(self, context: SamplerContext) -> SamplerState:
        """Raises SamplerError for what cannot be enforced, and for a model whose texts have no end token."""
        tokenizer = context.tokenizer
        if tokenizer is None:
            raise SamplerError("needs the model's tokenizer, and there is none", where=WHERE)
        if tokenizer.n_vocab > context.n_vocab:
            raise SamplerError(
                f"the tokenizer has {tokenizer.n_vocab} tokens, and the model logits for {context.n_vocab}", where=WHERE
            )
        vocabulary = self.vocabularies.of(tokenizer)
        return GrammarState(tokenizer, vocabulary, vocabulary.start_of(self.definition))
