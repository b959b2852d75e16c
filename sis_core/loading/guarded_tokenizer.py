"""A plugin's tokenizer, whose own errors become ours and name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sis_core.errors import FOREIGN, SisError, TokenizerError, blamed, blaming
from sis_core.tokenizer import Tokenizer

MEMBERS = ("n_vocab", "bos", "eos", "end_tokens", "add_bos", "add_eos",
           "encode", "decode", "token_bytes", "token_text")  # fmt: skip


class GuardedTokenizer:
    """A `Tokenizer` that asks another one. What that one has beside the contract is its too.

    Args:
        who: whose it is, for messages.

    Raises:
        TokenizerError: it lacks a member of the contract.
    """

    def __init__(self, tokenizer: Tokenizer, who: str) -> None:
        if missing := [name for name in MEMBERS if not hasattr(tokenizer, name)]:
            raise TokenizerError(
                f"{who} made something without {missing[0]}",
                fix="tell its author, who may check it with sis_core.testing.check_tokenizer",
            )
        self._tokenizer, self._who = tokenizer, who
        self.n_vocab, self.bos, self.eos = tokenizer.n_vocab, tokenizer.bos, tokenizer.eos
        self.end_tokens, self.add_bos, self.add_eos = tokenizer.end_tokens, tokenizer.add_bos, tokenizer.add_eos
        self._token_bytes, self._token_text = tokenizer.token_bytes, tokenizer.token_text

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        with blaming(TokenizerError, self._who, "encode"):
            return self._tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        with blaming(TokenizerError, self._who, "decode"):
            return self._tokenizer.decode(tokens, skip_special=skip_special)

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        try:  # for every token: `blaming` takes longer than the call itself
            return self._token_bytes(token, skip_special=skip_special)
        except (SisError, MemoryError):
            raise
        except FOREIGN as error:
            raise blamed(TokenizerError, self._who, error, "token_bytes") from error

    def token_text(self, token: int) -> str:
        try:
            return self._token_text(token)
        except (SisError, MemoryError):
            raise
        except FOREIGN as error:
            raise blamed(TokenizerError, self._who, error, "token_text") from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also asked for by copy and pickle, before there is a tokenizer to ask
            raise AttributeError(name)
        return getattr(self._tokenizer, name)
