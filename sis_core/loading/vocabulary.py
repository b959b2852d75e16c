"""The tokenizer that a file describes."""

from __future__ import annotations

from sis_core.errors import SisError, TokenizerError, blaming
from sis_core.gguf_file import GGUFFile
from sis_core.loading.guarded_tokenizer import GuardedTokenizer
from sis_core.registry import Registry
from sis_core.tokenizer import Tokenizer


def build_tokenizer(file: GGUFFile, registry: Registry) -> Tokenizer:
    """The tokenizer that a file describes."""
    name = file.metadata.get("tokenizer.ggml.model")
    if not isinstance(name, str):
        raise TokenizerError(
            "the key tokenizer.ggml.model is missing",
            where=str(file.path),
            fix="the file holds no vocabulary: work with token ids in a session",
        )
    factory = registry.get("tokenizers", name, where=str(file.path))
    who = f"the tokenizer {name!r} of the plugin {registry.owner('tokenizers', factory)}"
    try:
        with blaming(TokenizerError, who):
            return GuardedTokenizer(factory.build(file.metadata), who)
    except SisError as error:
        where = f"{file.path}: {error.where}" if error.where else str(file.path)
        raise type(error)(error.what, where=where, fix=error.fix) from error
