"""Byte-level BPE: text is cut into words by patterns, words into bytes, and bytes are merged by rank.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". The merging is done by Hugging
Face's `tokenizers`, on a vocabulary that has been checked before: it panics on one that contradicts itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeAlias

from attrs import frozen
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from sis_core.errors import TokenizerError
from sis_tokenizers.chunks import chunks
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from sis_tokenizers.special import Defaults, Specials, read_specials
from sis_tokenizers.text_tokenizer import TextTokenizer
from sis_tokenizers.vocabulary import PREFIX, Kind, Vocabulary, read_texts

Pair: TypeAlias = tuple[str, str]
log = logging.getLogger(__name__)


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte: itself where it is printable in Latin-1, else one from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


CHUNK = 256 * 1024
LETTERS = _byte_letters()
BYTES = {letter: bytes([byte]) for byte, letter in LETTERS.items()}


@frozen(eq=False)
class Merges:
    """The merges of a vocabulary.

    Attributes:
        pairs: in the order of their rank; a pair that the file has twice keeps its first rank.
        made: what they make.
    """

    pairs: list[Pair]
    made: set[str]


class BPETokenizer(TextTokenizer):
    """Text to merged bytes."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials, merges: Merges, pre: PreTokenizer) -> None:
        super().__init__(vocabulary, specials, space_prefix=False)
        ids, pairs = mergeable(vocabulary, specials, merges)
        self._boundary = pre.boundary
        self._lacks = bytes(byte for byte, letter in LETTERS.items() if letter not in ids)
        with no_panic("the vocabulary cannot be used"):
            self._engine = Tokenizer(models.BPE(ids, pairs, ignore_merges=pre.whole_words))
            cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
            letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            self._engine.pre_tokenizer = pre_tokenizers.Sequence([*cuts, letters])

    def _encode_plain(self, text: str) -> list[int]:
        if self._lacks:
            self._check_bytes(text)
        ids: list[int] = []
        with no_panic("the text cannot be cut into tokens"):
            for part in chunks(text, CHUNK, self._boundary):
                ids += self._engine.encode(part, add_special_tokens=False).ids
        return ids

    def _check_bytes(self, text: str) -> None:
        raw = text.encode()
        if len(raw.translate(None, self._lacks)) < len(raw):
            letter = next(letter for letter in text if not set(self._lacks).isdisjoint(letter.encode()))
            byte = next(byte for byte in letter.encode() if byte in self._lacks)
            raise TokenizerError(
                f"the vocabulary has no token for the byte 0x{byte:02X} of the character {letter!a}", where="prompt"
            )

    def _plain_bytes(self, token: int) -> bytes:
        if self._kinds[token] == Kind.USER_DEFINED:
            return self.vocabulary.raw(token)
        return b"".join(
            [BYTES.get(letter) or letter.encode("utf-8", "surrogateescape") for letter in self.vocabulary.texts[token]]
        )


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """TokenizerError for a panic of the library, which is no Exception; everything else passes."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what}: {error}", where=PREFIX + "merges") from error


def mergeable(vocabulary: Vocabulary, specials: Specials, merges: Merges) -> tuple[dict[str, int], list[Pair]]:
    """Ids and merges without tokens that only their name may make (control and unknown ones) and without non-text."""
    hidden = {vocabulary.texts[i] for i, kind in enumerate(specials.kinds) if kind in (Kind.CONTROL, Kind.UNKNOWN)}
    if not _is_text("".join(vocabulary.texts)):
        hidden |= {text for text in vocabulary.texts if not _is_text(text)}
    ids, pairs = dict(vocabulary.ids), merges.pairs
    for text in hidden:
        ids.pop(text, None)
    if not (hidden.isdisjoint(merges.made) and hidden.isdisjoint(chain.from_iterable(pairs))):
        pairs = [pair for pair in pairs if hidden.isdisjoint((*pair, "".join(pair)))]
    return ids, pairs


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_merges(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Merges:
    """Raises TokenizerError for the first merge that is not two parts.

    A merge of tokens that the vocabulary lacks can never happen: whoever pruned it left the merge there. It is left
    out, with a warning, unless none is left.
    """
    merges, ids = read_texts(metadata, "merges"), vocabulary.ids
    if {merge.count(" ") for merge in merges} <= {1}:
        parts = " ".join(merges).split(" ") if merges else []
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        made = {merge.replace(" ", "") for merge in merges}
        if made <= ids.keys() and all(map(ids.__contains__, parts)):
            return Merges(pairs if len(made) == len(pairs) else list(dict.fromkeys(pairs)), made)
        kept = [pair for pair in dict.fromkeys(pairs) if "" not in pair and {*pair, "".join(pair)} <= ids.keys()]
        if kept and all(merge.strip(" ") == merge for merge in merges):
            left_out = len(merges) - len(kept)
            log.warning("%smerges: %d of %d make or join no token, and are left out", PREFIX, left_out, len(merges))
            return Merges(kept, {"".join(pair) for pair in kept})
    raise TokenizerError(_bad_merge(merges, vocabulary), where=PREFIX + "merges")


def _bad_merge(merges: list[str], vocabulary: Vocabulary) -> str:
    """What is wrong with the first merge that is."""
    for i, merge in enumerate(merges):
        parts = merge.split(" ")
        if len(parts) != 2 or "" in parts:
            return f"merge {i} is {merge!r}, not two tokens with a space between"
        for part in parts:
            if part not in vocabulary.ids:
                return f"merge {i}, {merge!r}, has the part {part!r}, which is not a token"
        if "".join(parts) not in vocabulary.ids:
            return f"merge {i}, {merge!r}, makes {''.join(parts)!r}, which is not a token"
    raise AssertionError("every merge is right")


def _pre_tokenizer(metadata: Mapping[str, Any]) -> PreTokenizer:
    name = metadata.get(PREFIX + "pre")
    if name is None or name == "":
        log.warning("%spre is missing: text is cut by the default patterns, maybe not as the model learnt it", PREFIX)
        name = "default"
    if not isinstance(name, str):
        raise TokenizerError(f"is {name!r:.60}, not a name", where=PREFIX + "pre")
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"unknown pre-tokenizer {name!r}: the text would be cut into other words than the model learnt",
            where=PREFIX + "pre",
            fix="install a newer sis-tokenizers, or give token ids instead of text",
        )
    return PRE_TOKENIZERS[name]


def build_bpe(metadata: Mapping[str, Any]) -> BPETokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``gpt2``; TokenizerError if it contradicts itself."""
    pre = _pre_tokenizer(metadata)
    vocabulary = Vocabulary.read(metadata)
    merges = read_merges(metadata, vocabulary)
    specials = read_specials(metadata, vocabulary, Defaults(add_bos=pre.add_bos), merges.made)
    return BPETokenizer(vocabulary, specials, merges, pre)
