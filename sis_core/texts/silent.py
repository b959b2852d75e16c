"""The tokenizer of a file that has none that can be used: ids go in and come out, and there is no text."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sis_core.errors import PluginError, TokenizerError
from sis_core.loading.model import Model
from sis_core.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class SilentTokenizer:
    """Every token is empty; no token ends a text."""

    def __init__(self, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.bos: int | None = None
        self.eos: int | None = None
        self.end_tokens: frozenset[int] = frozenset()
        self.add_bos = self.add_eos = False

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """TokenizerError: there is no vocabulary."""
        raise TokenizerError("the file has no vocabulary that can be used", where="prompt", fix="give token ids")

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """Nothing."""
        return ""

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        """Nothing."""
        return b""

    def token_text(self, token: int) -> str:
        """The id, in brackets."""
        return f"<{token}>"


def tokenizer_or_silence(model: Model) -> Tokenizer:
    """The model's tokenizer; where that cannot be used a silent one, with a warning: ids need no text."""
    try:
        return model.tokenizer
    except (TokenizerError, PluginError) as error:
        log.warning("texts are token ids alone: %s", error)
        return SilentTokenizer(model.config.n_vocab)
