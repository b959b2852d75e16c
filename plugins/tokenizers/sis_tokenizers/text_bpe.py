"""BPE over a text's own characters, as Gemma 4 has it: a space is spelt U+2581, lines are merged whole, and a character
that no token has falls back to its bytes (``<0x0A>``). What is merged is said by rank, as in byte-level BPE.

Source: llama.cpp, src/llama-vocab.cpp (``byte_encode`` false).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, models

from sis_tokenizers.bpe import CHUNK, Merges, mergeable, no_panic, read_merges
from sis_tokenizers.chunks import chunks
from sis_tokenizers.special import Defaults, Specials, read_specials
from sis_tokenizers.spm import SPACE, byte_tokens
from sis_tokenizers.text_tokenizer import TextTokenizer
from sis_tokenizers.vocabulary import Vocabulary

LINES = re.compile(r"[^\n]+|\n+")
LINE_START = re.compile(r"\n(?=[^\n])")


class TextBPETokenizer(TextTokenizer):
    """Text to merged characters."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials, merges: Merges) -> None:
        super().__init__(vocabulary, specials, space_prefix=False)
        byte_tokens(vocabulary, specials.unk)
        ids, pairs = mergeable(vocabulary, specials, merges)
        self._line_ends = {text: i for text, i in ids.items() if set(text) == {"\n"}}
        with no_panic("the vocabulary cannot be used"):
            unk = None if specials.unk is None else vocabulary.texts[specials.unk]
            self._engine = Tokenizer(models.BPE(ids, pairs, byte_fallback=True, unk_token=unk if unk in ids else None))

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        with no_panic("the text cannot be cut into tokens"):
            for part in chunks(text.replace(" ", SPACE), CHUNK, LINE_START):
                for line in LINES.findall(part):
                    if (token := self._line_ends.get(line)) is not None:
                        ids.append(token)
                    else:
                        ids += self._engine.encode(line, add_special_tokens=False).ids
        return ids

    def _plain_bytes(self, token: int) -> bytes:
        return self.vocabulary.raw(token).replace(SPACE.encode(), b" ")


def build_text_bpe(metadata: Mapping[str, Any]) -> TextBPETokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``gemma4``, or ``gpt2`` with one of `TEXT_PRES`;
    TokenizerError if it contradicts itself."""
    vocabulary = Vocabulary.read(metadata)
    merges = read_merges(metadata, vocabulary)
    specials = read_specials(metadata, vocabulary, Defaults(), merges.made)
    return TextBPETokenizer(vocabulary, specials, merges)
