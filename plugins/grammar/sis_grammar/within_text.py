"""Tokens of text that goes on inside another: without the space that some vocabularies put before a text."""

from __future__ import annotations

from collections.abc import Sequence

from sis_core.errors import SisError
from sis_core.tokenizer import Tokenizer
from sis_grammar.caps import WHERE

MARKERS = ("\n", "\x01")  # what a text is encoded behind; no piece begins with the last and goes on


class WithinText:
    """Encodes so that the tokens add up to exactly the text's bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._markers = () if _adds_up(tokenizer, _encoded(tokenizer, "a"), "a") else MARKERS
        self._longest: dict[bytes, int] | None = None

    def __call__(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """The token ids; SisError where no tokens add up to the text."""
        for marker in self._markers or ("",):
            before, both = _encoded(tokenizer, marker), _encoded(tokenizer, marker + text)
            tokens = both[len(before) :]
            if both[: len(before)] == before and _adds_up(tokenizer, tokens, text):
                return tokens
        return self._by_longest(tokenizer, text.encode())

    def _by_longest(self, tokenizer: Tokenizer, raw: bytes) -> list[int]:
        """From left to right the longest token that fits."""
        if self._longest is None:
            ends = tokenizer.end_tokens
            pairs = [(tokenizer.token_bytes(token), token) for token in reversed(range(tokenizer.n_vocab))]
            self._longest = {piece: token for piece, token in pairs if piece and token not in ends}
        most, tokens = max(map(len, self._longest), default=0), list[int]()
        at = 0
        while at < len(raw):
            sizes = range(min(most, len(raw) - at), 0, -1)
            size = next((size for size in sizes if raw[at : at + size] in self._longest), None)
            if size is None:
                raise SisError(f"no token begins with the byte 0x{raw[at]:02X}", where=WHERE)
            tokens.append(self._longest[raw[at : at + size]])
            at += size
        return tokens


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return tokenizer.encode(text, add_special=False)
    except SisError:  # the vocabulary lacks a byte of it
        return []


def _adds_up(tokenizer: Tokenizer, tokens: Sequence[int], text: str) -> bool:
    return b"".join(map(tokenizer.token_bytes, tokens)) == text.encode()
