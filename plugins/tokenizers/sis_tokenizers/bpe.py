"""Byte-level BPE: text is cut into words by patterns, words into bytes, and bytes are merged by rank.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". The merging is done by Hugging
Face's `tokenizers`, on a vocabulary that has been checked before: it panics on one that contradicts itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from sis_core.architecture import suggest
from sis_core.errors import TokenizerError
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from sis_tokenizers.special import Defaults, Specials, read_specials
from sis_tokenizers.text_tokenizer import TextTokenizer
from sis_tokenizers.vocabulary import PREFIX, Kind, Vocabulary, read_texts

log = logging.getLogger(__name__)


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte: itself where it is printable in Latin-1, else one from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


LETTERS = _byte_letters()
BYTES = {letter: bytes([byte]) for byte, letter in LETTERS.items()}


class BPETokenizer(TextTokenizer):
    """Text to merged bytes."""

    def __init__(
        self, vocabulary: Vocabulary, specials: Specials, merges: list[tuple[str, str]], pre: PreTokenizer
    ) -> None:
        super().__init__(vocabulary, specials, space_prefix=False)
        ids, merges = _mergeable(vocabulary, specials, merges)
        self._lacks = bytes(byte for byte, letter in LETTERS.items() if letter not in ids)
        with _no_panic("the vocabulary cannot be used"):
            self._engine = Tokenizer(models.BPE(ids, merges, ignore_merges=pre.whole_words))
            cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
            letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            self._engine.pre_tokenizer = pre_tokenizers.Sequence([*cuts, letters])

    def _encode_plain(self, text: str) -> list[int]:
        if self._lacks:
            self._check_bytes(text)
        with _no_panic("the text cannot be cut into tokens"):
            ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return ids

    def _check_bytes(self, text: str) -> None:
        raw = text.encode()
        if len(raw.translate(None, self._lacks)) < len(raw):
            lacking = next(byte for byte in raw if byte in self._lacks)
            raise TokenizerError(f"the vocabulary has no token for the byte 0x{lacking:02X}", where="prompt")

    def _plain_bytes(self, token: int) -> bytes:
        if self._kinds[token] == Kind.USER_DEFINED:
            return self.vocabulary.raw(token)
        return b"".join(
            [BYTES.get(letter) or letter.encode("utf-8", "surrogateescape") for letter in self.vocabulary.texts[token]]
        )


@contextmanager
def _no_panic(what: str) -> Iterator[None]:
    """TokenizerError for a panic of the library, which is no Exception; everything else passes."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what}: {error}", where=PREFIX + "merges") from error


def _mergeable(
    vocabulary: Vocabulary, specials: Specials, merges: list[tuple[str, str]]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and merges without tokens that only their name may make: control and unknown ones."""
    hidden = {vocabulary.texts[i] for i, kind in enumerate(specials.kinds) if kind in (Kind.CONTROL, Kind.UNKNOWN)}
    ids = {text: i for text, i in vocabulary.ids.items() if text not in hidden}
    if any(kind in (Kind.CONTROL, Kind.UNKNOWN) for kind in specials.kinds):
        merges = [pair for pair in merges if pair[0] + pair[1] not in hidden and hidden.isdisjoint(pair)]
    return {text: i for text, i in ids.items() if text.isprintable() or _is_text(text)}, merges


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _read_merges(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Pairs in the order of their rank; a pair that stands there twice keeps its first rank."""
    ids, pairs = vocabulary.ids, []
    for i, merge in enumerate(read_texts(metadata, "merges")):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids:
            raise TokenizerError(_bad_merge(i, merge, left, right, vocabulary), where=PREFIX + "merges")
        if left + right not in ids:
            raise TokenizerError(
                f"merge {i}, {merge!r}, makes {left + right!r}, which is not a token", where=PREFIX + "merges"
            )
        pairs.append((left, right))
    return list(dict.fromkeys(pairs))


def _bad_merge(i: int, merge: str, left: str, right: str, vocabulary: Vocabulary) -> str:
    if not left or not right or " " in right:
        return f"merge {i} is {merge!r}, not two tokens with a space between"
    unknown = left if left not in vocabulary.ids else right
    return f"merge {i}, {merge!r}, has the part {unknown!r}, which is not a token"


def _pre_tokenizer(metadata: Mapping[str, Any]) -> PreTokenizer:
    name = metadata.get(PREFIX + "pre")
    if name is None or name == "":
        log.warning("%spre is missing: text is cut by the default patterns, maybe not as the model learnt it", PREFIX)
        name = "default"
    if not isinstance(name, str):
        raise TokenizerError(f"is {name!r:.60}, not a name", where=PREFIX + "pre")
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"unknown pre-tokenizer {name!r}{suggest(name, sorted(PRE_TOKENIZERS))}",
            where=PREFIX + "pre",
            fix=f"known are: {', '.join(sorted(PRE_TOKENIZERS))}",
        )
    return PRE_TOKENIZERS[name]


def build_bpe(metadata: Mapping[str, Any]) -> BPETokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``gpt2``; TokenizerError when it contradicts itself."""
    pre = _pre_tokenizer(metadata)
    vocabulary = Vocabulary.read(metadata)
    merges = _read_merges(metadata, vocabulary)
    made = {left + right for left, right in merges}
    specials = read_specials(metadata, vocabulary, Defaults(add_bos=pre.add_bos), made)
    return BPETokenizer(vocabulary, specials, merges, pre)
