"""What all tokenizers of this plugin share: checks, special tokens, and the way back to text."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sis_core.errors import TokenizerError
from sis_tokenizers.special import HIDDEN, Partition, Specials
from sis_tokenizers.vocabulary import BYTE_TOKEN, Kind, Vocabulary

log = logging.getLogger(__name__)
MAX_TEXT_BYTES = 16 * 1024 * 1024


class TextTokenizer:
    """A `sis_core.tokenizer.Tokenizer`; subclasses say how plain text becomes tokens and tokens become bytes.

    Attributes:
        space_prefix: a space is put before a text, and taken away again at the beginning of a decoded one.
    """

    def __init__(self, vocabulary: Vocabulary, specials: Specials, *, space_prefix: bool) -> None:
        self.vocabulary = vocabulary
        self.n_vocab = len(vocabulary)
        self.bos, self.eos = specials.bos, specials.eos
        self.add_bos, self.add_eos = specials.add_bos, specials.add_eos
        self.end_tokens = specials.end_tokens
        self.space_prefix = space_prefix
        self._kinds = specials.kinds
        self._partition = Partition(vocabulary, specials)
        self._seen: dict[int, bytes] = {}  # of plain tokens that were spelt before: a text has few different ones

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; TokenizerError for a lone surrogate, a byte that no token has, or too long a text."""
        check_text(text)
        tokens: list[int] = [self.bos] if add_special and self.add_bos and self.bos is not None else []
        after_special = True
        for part in self._partition.cut(text, parse_special=parse_special):
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self._encode_plain(" " + part if self.space_prefix and after_special else part)
            after_special = isinstance(part, int)
        if add_special and self.add_bos and tokens[:2] == [self.bos, self.bos]:
            log.warning("the text names the token %r that begins it, and gets another", self.token_text(tokens[0]))
        if add_special and self.add_eos and self.eos is not None:
            tokens.append(self.eos)
        return tokens

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``tokens``, without the space that `encode` puts before a text; U+FFFD for what is not UTF-8."""
        raw = b"".join([self.token_bytes(token, skip_special=skip_special) for token in tokens])
        if self.space_prefix and raw.startswith(b" "):
            raw = raw[1:]
        return raw.decode("utf-8", "replace")

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        """The bytes that a token adds to a running text; TokenizerError for an id out of range."""
        if (seen := self._seen.get(token)) is not None:
            return seen
        self._check_token(token)
        kind = self._kinds[token]
        if kind in HIDDEN:
            return b"" if skip_special else self.vocabulary.raw(token)
        if kind == Kind.BYTE and (byte := BYTE_TOKEN.fullmatch(self.vocabulary.texts[token])):
            return bytes([int(byte[1], 16)])
        raw = self._seen[token] = self._plain_bytes(token)
        return raw

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it; U+FFFD for what is not UTF-8."""
        self._check_token(token)
        return self.vocabulary.raw(token).decode("utf-8", "replace")

    def _check_token(self, token: int) -> None:
        if not 0 <= token < self.n_vocab:
            raise TokenizerError(f"token {token} is outside the vocabulary of {self.n_vocab}", where="decode")

    def _encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def _plain_bytes(self, token: int) -> bytes:
        raise NotImplementedError


def check_text(text: str) -> None:
    """TokenizerError for a text with a lone surrogate or longer than `MAX_TEXT_BYTES`."""
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} is the lone surrogate U+{ord(text[error.start]):04X}, which is no text",
            where="prompt",
            fix="decode the text with errors='replace'",
        ) from None
    if size > MAX_TEXT_BYTES:
        raise TokenizerError(
            f"a text of {size} bytes is over the limit of {MAX_TEXT_BYTES} bytes", where="prompt", fix="shorten it"
        )
