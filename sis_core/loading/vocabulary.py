"""The tokenizer that a file describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sis_core.errors import PluginError, SisError, TokenizerError, blaming
from sis_core.gguf_file import GGUFFile
from sis_core.loading.guarded_tokenizer import GuardedTokenizer
from sis_core.loading.rowless import without_rowless
from sis_core.machine.collector import no_collection
from sis_core.registry import Registry
from sis_core.tokenizer import Tokenizer


@no_collection()
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
    metadata = without_rowless(file.metadata, file.tensors)
    try:
        with blaming(TokenizerError, who):
            return GuardedTokenizer(factory.build(metadata), who)
    except SisError as error:
        where = f"{file.path}: {error.where}" if error.where else str(file.path)
        raise type(error)(error.what, where=where, fix=error.fix) from error


def refusal(metadata: Mapping[str, Any], registry: Registry) -> str | None:
    """Why `build_tokenizer` will refuse a file, where the two names that it has for its tokenizer say so already.

    The other keys are not looked at: they cost a second for a large vocabulary. None for a file without one.
    """
    name, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if name is None:
        return None
    try:
        factory = registry.get("tokenizers", name)
    except PluginError as error:
        return error.what
    known = isinstance(pre, str) and pre in ("", *factory.pre)
    if pre is None or known or not factory.pre:
        return None
    who = registry.owner("tokenizers", factory)
    return f"the plugin {who} does not know the tokenizer.ggml.pre {pre!r:.60}, which says how text is cut into words"
