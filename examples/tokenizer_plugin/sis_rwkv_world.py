"""RWKV's World tokenizer for sis: always the longest token that fits, over bytes.

Source: Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", and the World vocabulary; files as
llama.cpp's converter writes them, ``tokenizer.ggml.model`` "rwkv", each token spelt as Python spells bytes:
``\\xe6\\x9c\\n``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sis_core import hookimpl
from sis_core.errors import TokenizerError
from sis_core.tokenizer import Tokenizer, TokenizerFactory

PREFIX = "tokenizer.ggml."
CONTROL, UNUSED = 3, 5  # of `tokenizer.ggml.token_type`
ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
SPELT = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def unescaped(spelling: bytes) -> bytes:
    """The bytes that a token stands for."""

    def plain(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        return bytes([int(escape[1:], 16)]) if len(escape) == 3 else SPELT.get(escape, escape)

    return ESCAPE.sub(plain, spelling)


class World:
    """A `sis_core.tokenizer.Tokenizer`. Immutable, so any number of threads may use it."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.spellings = listed(metadata, "tokens", bytes)
        types = listed(metadata, "token_type", int)
        self.n_vocab = len(self.spellings)
        if len(types) != self.n_vocab:
            raise TokenizerError(f"has {len(types)} types for {self.n_vocab} tokens", where=f"{PREFIX}token_type")
        self.raw = [unescaped(spelling) for spelling in self.spellings]
        self.hidden = frozenset(token for token, kind in enumerate(types) if kind in (CONTROL, UNUSED))
        self.names = {self.token_text(t): t for t in self.hidden if types[t] == CONTROL and self.spellings[t]}
        self.pattern = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
        self.ids = {raw: t for t, raw in enumerate(self.raw) if t not in self.hidden}
        self.longest = max(map(len, self.ids), default=0)
        self.bos, self.eos, turn = (self._id(metadata, which) for which in ("bos", "eos", "eot"))
        self.end_tokens = frozenset(token for token in (self.eos, turn) if token is not None)
        self.add_bos = self.add_eos = False

    def _id(self, metadata: Mapping[str, Any], which: str) -> int | None:
        key = f"{PREFIX}{which}_token_id"
        token = metadata.get(key)
        if token is not None and (type(token) is not int or not 0 <= token < self.n_vocab):
            raise TokenizerError(f"is {token!r}, not one of {self.n_vocab} ids", where=key)
        return token

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; TokenizerError for a lone surrogate, or a byte that no token begins with."""
        parts = re.split(f"({self.pattern})", text) if parse_special and self.names else [text]  # names at odd places
        return [
            token for i, part in enumerate(parts) for token in ([self.names[part]] if i % 2 else self._longest(part))
        ]

    def _longest(self, text: str) -> list[int]:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {error.start} is half of a pair, which is no text", where="prompt"
            ) from None
        tokens, at = [], 0
        while at < len(data):
            for stop in range(min(at + self.longest, len(data)), at, -1):
                if (token := self.ids.get(data[at:stop])) is not None:
                    break
            else:
                raise TokenizerError(f"no token begins with the byte {data[at]:#04x}", where="prompt")
            tokens.append(token)
            at = stop
        return tokens

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``tokens``; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes(token, skip_special=skip_special) for token in tokens).decode(
            "utf-8", "replace"
        )

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        """The bytes that a token adds to a text; TokenizerError for an id out of range."""
        if not 0 <= token < self.n_vocab:
            raise TokenizerError(f"token {token} is outside the vocabulary of {self.n_vocab}", where="decode")
        return b"" if skip_special and token in self.hidden else self.raw[token]

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        self.token_bytes(token)  # refuses what is no token
        return self.spellings[token].decode("utf-8", "replace")


def listed(metadata: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """An array of a file as a list; TokenizerError when it is missing, empty, or holds anything else."""
    found = metadata.get(PREFIX + name)
    elements = list(found) if isinstance(found, Sequence) and not isinstance(found, str | bytes) else []
    if not elements or not all(type(element) is kind for element in elements):
        raise TokenizerError(f"must be an array of {kind.__name__}", where=PREFIX + name)
    return elements


def build(metadata: Mapping[str, Any]) -> Tokenizer:
    """A file's tokenizer."""
    return World(metadata)


@hookimpl
def sis_register_tokenizers() -> list[TokenizerFactory]:
    return [TokenizerFactory("rwkv", build)]
