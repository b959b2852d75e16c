"""What is added to the language: a tag of transformers, and a limit while a template is read."""

from __future__ import annotations

from collections.abc import Iterable

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser

from sis_chat.jinja.meter import CeilingError


class Generation(Extension):
    """``{% generation %}``: marks what a model wrote, for training. Here it is a scope and nothing else."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(list(parser.parse_statements(("name:endgeneration",), drop_needle=True)), lineno=line)


class CountTokens(Extension):
    """Refuses a template of too many tokens while it is read."""

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        meter = self.environment.meter  # type: ignore[attr-defined]
        left = meter.ceilings.tokens
        for token in stream:
            meter.spend()
            left -= 1
            if left < 0:
                raise CeilingError(f"it has more than {meter.ceilings.tokens} tokens")
            yield token
