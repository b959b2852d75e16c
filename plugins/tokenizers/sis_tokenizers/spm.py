"""SentencePiece's BPE: the two neighbours that make the token with the best score are joined until none are left.

Source: Kudo and Richardson 2018, "SentencePiece"; the order of joins among equals and the fallback to bytes are those
of llama.cpp (src/llama-vocab.cpp).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import Any

from sis_core.errors import TokenizerError
from sis_tokenizers.chunks import NOWHERE, chunks
from sis_tokenizers.special import Defaults, Specials, read_specials
from sis_tokenizers.text_tokenizer import TextTokenizer
from sis_tokenizers.vocabulary import PREFIX, Kind, Vocabulary, read_flag

log = logging.getLogger(__name__)
SPACE = "▁"  # U+2581, how pieces spell a space
WORDS = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
CACHED_WORDS = 16384
CACHED_LENGTH = 64
CHUNK = 512 * 1024


class SPMTokenizer(TextTokenizer):
    """Text to pieces by score."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials, *, space_prefix: bool) -> None:
        super().__init__(vocabulary, specials, space_prefix=space_prefix)
        assert vocabulary.scores is not None
        self._bytes = byte_tokens(vocabulary, specials.unk)
        self._has_bytes = len(self._bytes) == 256
        joinable = {Kind.UNDEFINED, Kind.NORMAL, Kind.USER_DEFINED}
        self._ids = {text: i for text, i in vocabulary.ids.items() if specials.kinds[i] in joinable}
        self._costs = {text: -vocabulary.scores[i] for text, i in self._ids.items()}
        # Where no piece goes on after the end of a word, words do not meet, and each can be done on its own.
        self._by_words = not any(SPACE in text.lstrip(SPACE) for text in self._ids)
        self._word = lru_cache(CACHED_WORDS)(self._join)

    def _encode_plain(self, text: str) -> list[int]:
        text = text.replace(" ", SPACE)
        tokens: list[int] = []
        for word in WORDS.findall(text) if self._by_words else [text]:
            if len(word) <= CACHED_LENGTH:
                tokens += self._word(word)
            else:
                for part in chunks(word, CHUNK, NOWHERE):
                    tokens += self._join(part)
        return tokens

    def _plain_bytes(self, token: int) -> bytes:
        return self.vocabulary.raw(token).replace(SPACE.encode(), b" ")

    def _join(self, text: str) -> tuple[int, ...]:
        """Tokens of a text whose spaces are spelt U+2581.

        A symbol is known by where it starts: ``end`` says where it stops, 0 once it is part of another.
        """
        costs, n = self._costs, len(text)
        end, before = list(range(1, n + 1)), list(range(-1, n - 1))
        queue = [(cost, i, i + 1, i + 2) for i in range(n - 1) if (cost := costs.get(text[i : i + 2])) is not None]
        heapify(queue)
        while queue:
            _, left, middle, stop = heappop(queue)
            if end[left] != middle or end[middle] != stop:
                continue  # one of the two has been joined with another since
            end[left], end[middle] = stop, 0
            if stop < n:
                before[stop] = left
                after = end[stop]
                if (cost := costs.get(text[left:after])) is not None:
                    heappush(queue, (cost, left, stop, after))
            if left:
                first = before[left]
                if (cost := costs.get(text[first:stop])) is not None:
                    heappush(queue, (cost, first, left, stop))
        ids, tokens, at = self._ids, list[int](), 0
        while at < n:
            piece = text[at : end[at]]
            at = end[at]
            token = ids.get(piece)
            if token is not None:
                tokens.append(token)
            else:
                tokens += [self._bytes[byte] for byte in piece.encode()] if self._has_bytes else self._bytes[:1]
        return tuple(tokens)


def byte_tokens(vocabulary: Vocabulary, unk: int | None) -> list[int]:
    """The ids of <0x00> to <0xFF>, for characters that no piece has; the unknown token alone where there are none."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    missing = [name for name in names if name not in vocabulary.ids]
    if len(missing) == len(names) and unk is not None:
        log.warning("%stokens has no bytes: characters that it lacks become %r", PREFIX, vocabulary.texts[unk])
        return [unk]
    if missing:
        raise TokenizerError(
            f"a vocabulary that falls back to bytes needs a token for each of the 256; {len(missing)} are missing, "
            f"the first is {missing[0]}",
            where=PREFIX + "tokens",
            fix="convert the model again with byte_fallback",
        )
    return [vocabulary.ids[name] for name in names]


def build_spm(metadata: Mapping[str, Any]) -> SPMTokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``llama``; TokenizerError if it contradicts itself."""
    vocabulary = Vocabulary.read(metadata)
    if vocabulary.scores is None:
        raise TokenizerError("the key is missing", where=PREFIX + "scores", fix="SentencePiece joins pieces by score")
    specials = read_specials(metadata, vocabulary, Defaults(bos=1, eos=2, unk=0, add_bos=True))
    return SPMTokenizer(vocabulary, specials, space_prefix=read_flag(metadata, "add_space_prefix", True))
