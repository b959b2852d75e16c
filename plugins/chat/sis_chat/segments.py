"""From rendered text to token ids, so that what a user wrote never becomes a control token.

A text is encoded in one go, as llama.cpp and transformers do, for merges go over the border between a template's new
line and a user's. Only where a given character is part of a control token's name, the name is cut out and encoded as
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sis_chat.jinja.template import message_of
from sis_chat.jinja.text import WRITTEN, Text, cut, is_given, marks_of, plain
from sis_core.chat import Segment
from sis_core.tokenizer import Tokenizer

SPECIAL_TYPES = frozenset({2, 3, 4})  # unknown, control, user-defined: `tokenizer.ggml.token_type` of GGUF


class Encoder:
    """Encodes rendered texts for one vocabulary. Immutable."""

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._names = frozenset(control_names(metadata))
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._mark = "\n"  # encoded before what is not the beginning, so that no space is put before it
        self._mark_tokens = tokenizer.encode(self._mark, add_special=False)

    def segments(self, text: str) -> tuple[Segment, ...]:
        """``text`` (a `Text`, as templates render it) with its ids, in runs of one message or of the template.

        A token that goes over the border of two runs belongs to the first.
        """
        found: list[Segment] = []
        for part, spelt in self._parts(text):
            tokens = self._as_text(part, not found) if spelt else self._encode(part, not found, trusted=True)
            found += self._runs(part, tokens)
        bos = self._tokenizer.bos
        if self._tokenizer.add_bos and bos is not None and not (found and found[0].tokens[:1] == (bos,)):
            found.insert(0, Segment("", (bos,)))
        return tuple(found)

    def cut(self, text: str) -> list[str | int]:
        """Pieces of text, and the ids of the control tokens between them. User-defined ones are text."""
        parts: list[str | int] = []
        at = 0
        for match in self._pattern.finditer(text):
            tokens = self._encode(match[0], False, trusted=True)
            if len(tokens) == 1 and not self._tokenizer.token_bytes(tokens[0]):
                parts += [text[at : match.start()], tokens[0]]
                at = match.end()
        parts.append(text[at:])
        return [part for part in parts if part != ""]

    def ends(self, text: str) -> bool:
        """Whether ``text`` is, or begins with, a token that ends a text."""
        tokens = self._encode(text, False, trusted=True)
        return bool(tokens) and tokens[0] in self._tokenizer.end_tokens

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Pieces of the text, and whether each is a control token's name that was given."""
        at = 0
        if is_given(text):
            for match in self._pattern.finditer(plain(text)):
                name = cut(text, match.start(), match.end())
                if is_given(name):
                    if match.start() > at:
                        yield cut(text, at, match.start()), False
                    yield name, True
                    at = match.end()
        if at < len(text):
            yield cut(text, at), False

    def _encode(self, text: str, first: bool, *, trusted: bool) -> list[int]:
        if first:
            return self._tokenizer.encode(plain(text), add_special=False, parse_special=trusted)
        tokens = self._tokenizer.encode(self._mark + plain(text), add_special=False, parse_special=trusted)
        n = len(self._mark_tokens)
        if tokens[:n] == self._mark_tokens:
            return tokens[n:]
        return self._tokenizer.encode(plain(text), add_special=False, parse_special=trusted)

    def _as_text(self, name: str, first: bool) -> list[int]:
        """The ids of a control token's name as text. User-defined ones are always read as tokens, so cut in two."""
        tokens = self._encode(name, first, trusted=False)
        if any(self._tokenizer.token_text(token) in self._names for token in tokens):
            tokens = self._encode(cut(name, 0, 1), first, trusted=False)
            tokens += self._encode(cut(name, 1), False, trusted=False)
        return tokens

    def _runs(self, text: str, tokens: Sequence[int]) -> Iterator[Segment]:
        """The text in runs of one message, with the tokens that begin in each."""
        marks = [message_of(mark) for mark in marks_of(text)] if isinstance(text, Text) else [None] * len(text)
        runs = [(message, len(list(group))) for message, group in groupby(marks)]
        starts = self._starts(plain(text), tokens) if len(runs) > 1 else None
        if starts is None:
            single = runs[0][0] if len(runs) == 1 else None
            yield Segment(plain(text), tuple(tokens), single)
            return
        at = end = taken = 0
        for i, (message, length) in enumerate(runs):
            part = plain(text)[at : at + length]
            at, end = at + length, end + len(part.encode())
            until = taken
            while until < len(tokens) and (starts[until] < end or i == len(runs) - 1):
                until += 1
            yield Segment(part, tuple(tokens[taken:until]), message)
            taken = until

    def _starts(self, text: str, tokens: Sequence[int]) -> list[int] | None:
        """The byte of the text where each token begins, or None where tokens do not spell it."""
        raw = [self._tokenizer.token_bytes(token, skip_special=False) for token in tokens]
        spelt, wanted = b"".join(raw), text.encode()
        shift = len(spelt) - len(wanted)
        if spelt[shift:] != wanted or spelt[:shift].strip(b" "):
            return None
        starts, at = [], -shift
        for piece in raw:
            starts.append(at)
            at += len(piece)
        return starts


def control_names(metadata: Mapping[str, Any]) -> list[str]:
    """The spellings of all control and user-defined tokens of a GGUF file."""
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if tokens is None or types is None:
        return []
    names = []
    for token, kind in zip(tokens, types, strict=False):
        if int(kind) in SPECIAL_TYPES:
            name = bytes(token).decode("utf-8", "replace") if not isinstance(token, str) else token
            if name.strip(WRITTEN):
                names.append(name)
    return names
