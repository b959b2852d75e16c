"""A vocabulary read from metadata and checked: what stands here no tokenizer has to doubt again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from math import isfinite
from typing import Any

from attrs import frozen

from sis_core.errors import TokenizerError

PREFIX = "tokenizer.ggml."
MAX_TOKEN_BYTES = 64 * 1024
NO_TOKEN = 0xFFFFFFFF  # how converters write -1, "none", into an unsigned key
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Kind(IntEnum):
    """What a token is for, as ``tokenizer.ggml.token_type`` numbers it. Source: the GGUF specification."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@frozen(eq=False)
class Vocabulary:
    """Tokens by id.

    Attributes:
        texts: each token as the file spells it. Bytes that are not UTF-8 are kept as lone surrogates
            (``surrogateescape``), which no text to encode can hold.
        kinds: the `Kind` of each token.
        scores: of each token, or None where the file has none.
        ids: the id of each spelling; empty ones are left out.
    """

    texts: list[str]
    kinds: list[int]
    scores: list[float] | None
    ids: dict[str, int]

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """Raises TokenizerError when a list is missing, of the wrong type or length, or a token stands there twice."""
        texts = read_texts(metadata, "tokens")
        if not texts:
            raise TokenizerError("is empty", where=PREFIX + "tokens", fix="a vocabulary has at least one token")
        _check_sizes(texts)
        return cls(texts, _kinds(metadata, texts), _scores(metadata, len(texts)), _ids(texts))

    def __len__(self) -> int:
        return len(self.texts)

    def raw(self, token: int) -> bytes:
        """The bytes of a token as the file spells it."""
        return self.texts[token].encode("utf-8", "surrogateescape")


def read_texts(metadata: Mapping[str, Any], name: str) -> list[str]:
    """An array of strings; its elements may be bytes or str."""
    elements = _elements(metadata, name)
    types = set(map(type, elements))
    if types <= {bytes}:
        try:
            return [text.decode() for text in elements]
        except UnicodeDecodeError:
            return [text.decode("utf-8", "surrogateescape") for text in elements]
    if types <= {bytes, str}:
        return [text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text for text in elements]
    wrong = next(i for i, element in enumerate(elements) if not isinstance(element, bytes | str))
    raise TokenizerError(
        f"element {wrong} is {elements[wrong]!r}, a {type(elements[wrong]).__name__}, not a string",
        where=PREFIX + name,
    )


def read_id(metadata: Mapping[str, Any], name: str, n_vocab: int) -> int | None:
    """The id that a key names, or None where the key is missing or says "none"."""
    value = metadata.get(PREFIX + name)
    if value is None or value == NO_TOKEN:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenizerError(f"is {value!r}, not a token id", where=PREFIX + name)
    if not 0 <= value < n_vocab:
        raise TokenizerError(f"the id {value} is outside the vocabulary of {n_vocab} tokens", where=PREFIX + name)
    return value


def read_flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """The truth that a key states, or ``default`` where it is missing."""
    value = metadata.get(PREFIX + name, default)
    if not isinstance(value, bool):
        raise TokenizerError(f"is {value!r}, not true or false", where=PREFIX + name)
    return value


def _elements(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(PREFIX + name)
    if value is None:
        raise TokenizerError(
            "the key is missing", where=PREFIX + name, fix="convert the model again, or give token ids instead of text"
        )
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TokenizerError(f"is {value!r:.60}, not an array", where=PREFIX + name)
    return list(value)


def _check_sizes(texts: list[str]) -> None:
    if max(map(len, texts)) * 4 <= MAX_TOKEN_BYTES:
        return
    for i, text in enumerate(texts):
        if len(text) * 4 > MAX_TOKEN_BYTES:
            size = len(text.encode("utf-8", "surrogateescape"))
            if size > MAX_TOKEN_BYTES:
                raise TokenizerError(
                    f"token {i} has {size} bytes, more than the {MAX_TOKEN_BYTES} allowed", where=PREFIX + "tokens"
                )


def _ids(texts: list[str]) -> dict[str, int]:
    ids = dict(zip(texts, range(len(texts)), strict=True))
    n_empty = texts.count("") if "" in ids else 0
    if len(ids) - (n_empty > 0) + n_empty != len(texts):
        first: dict[str, int] = {}
        for i, text in enumerate(texts):
            if text and first.setdefault(text, i) != i:
                raise TokenizerError(
                    f"the token {text!r} stands there twice, as {first[text]} and {i}", where=PREFIX + "tokens"
                )
    ids.pop("", None)
    return ids


def _numbers(metadata: Mapping[str, Any], name: str, n_vocab: int, types: tuple[type, ...]) -> list[Any] | None:
    if PREFIX + name not in metadata:
        return None
    numbers = _elements(metadata, name)
    if len(numbers) != n_vocab:
        raise TokenizerError(f"has {len(numbers)} elements for {n_vocab} tokens", where=PREFIX + name)
    if not set(map(type, numbers)) <= set(types):
        wrong = next(i for i, number in enumerate(numbers) if type(number) not in types)
        raise TokenizerError(f"element {wrong} is {numbers[wrong]!r:.60}, not a number", where=PREFIX + name)
    return numbers


def _scores(metadata: Mapping[str, Any], n_vocab: int) -> list[float] | None:
    scores = _numbers(metadata, "scores", n_vocab, (float, int))
    if scores is not None and not all(map(isfinite, scores)):
        wrong = next(i for i, score in enumerate(scores) if not isfinite(score))
        raise TokenizerError(f"the score of token {wrong} is {scores[wrong]}", where=PREFIX + "scores")
    return scores


def _kinds(metadata: Mapping[str, Any], texts: list[str]) -> list[int]:
    kinds = _numbers(metadata, "token_type", len(texts), (int,))
    if kinds is None:
        return [Kind.NORMAL] * len(texts)
    where = PREFIX + "token_type"
    present = set(kinds)
    if not present <= set(Kind):
        wrong = next(i for i, kind in enumerate(kinds) if kind not in set(Kind))
        raise TokenizerError(
            f"the type of token {wrong} is {kinds[wrong]}; types go from 0 to {max(Kind)}", where=where
        )
    for i, kind in enumerate(kinds) if Kind.BYTE in present else ():
        if kind == Kind.BYTE and not BYTE_TOKEN.fullmatch(texts[i]):
            raise TokenizerError(f"token {i} is a byte, but it is spelt {texts[i]!r} and not like <0x0A>", where=where)
    return kinds
