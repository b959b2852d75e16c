"""Structured output: a sampler that lets through only what a JSON schema, a regular expression or a grammar allows."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.sampler import Sampler
from sis_grammar.sampler import Grammar
from sis_grammar.vocabulary import Vocabularies


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    class OfOneRegistry(Grammar):
        __doc__ = Grammar.__doc__
        vocabularies = Vocabularies()  # not the module's: they are kept as long as the registry and the tokenizers live

    return [OfOneRegistry]
