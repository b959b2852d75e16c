"""What a tokenizer does, and text that streams without ever splitting a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen


class Tokenizer(Protocol):
    """Text to token ids and back. Immutable and thread-safe.

    Attributes:
        n_vocab: number of tokens.
        bos, eos: ids of the begin and end tokens, None where the file names none.
        end_tokens: every id that ends a text (eos, end of turn …).
        add_bos, add_eos: whether `encode` adds them when ``add_special`` is true.
    """

    n_vocab: int
    bos: int | None
    eos: int | None
    end_tokens: frozenset[int]
    add_bos: bool
    add_eos: bool

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``. ``parse_special`` reads the names of control tokens in it as those tokens.

        Raises:
            TokenizerError: the text holds a lone surrogate, or characters that the vocabulary cannot express.
        """

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``tokens``, from its beginning; bytes that are not UTF-8 become U+FFFD.

        It is what `token_bytes` of each add up to, less the space that some vocabularies put before a text.

        Raises:
            TokenizerError: an id is out of range.
        """

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        """The bytes that a token adds to a running text; TokenizerError for an id out of range."""

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it, for people to read."""


@frozen
class TokenizerFactory:
    """Builds tokenizers of one kind.

    Attributes:
        model: the value of ``tokenizer.ggml.model`` that it answers to.
        build: from the file's metadata (every key, arrays of strings as bytes) to a tokenizer; TokenizerError when
            the vocabulary contradicts itself. Called at most once for each model.
        pre: the values of ``tokenizer.ggml.pre`` it knows, of which ``sis inspect`` says that others will be refused.
            Empty where the key changes nothing.
    """

    model: str
    build: Callable[[Mapping[str, Any]], Tokenizer]
    pre: tuple[str, ...] = ()


class TextStream:
    """Joins tokens to text; holds back bytes until their character is whole.

    Args:
        skip_special: leave control tokens out.
        at_start: the tokens begin a text, so that the stream adds up to what `Tokenizer.decode` makes of them; else
            they go on with one, and a space before the first word stays.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, at_start: bool = False) -> None:
        self._tokenizer, self._token_bytes = tokenizer, tokenizer.token_bytes
        self._skip_special = skip_special
        self._at_start = at_start
        self._held = b""

    def push(self, token: int) -> str:
        """Text that this token completes; may be empty."""
        raw = self._token_bytes(token, skip_special=self._skip_special)
        if self._at_start and raw:
            self._at_start = False
            shown = self._tokenizer.decode([token], skip_special=False)
            if raw.startswith(b" ") and shown == raw[1:].decode("utf-8", "replace"):
                raw = raw[1:]
        if self._held:
            raw = self._held + raw
        text, n = codecs.utf_8_decode(raw, "replace", False)  # of bytes that may go on
        self._held = raw[n:]
        return text

    def flush(self) -> str:
        """What is left at the end: U+FFFD when the text stops inside a character."""
        held, self._held = self._held, b""
        return held.decode("utf-8", "replace")
