"""A model as chats see one: a vocabulary of characters and named tokens, and a file's keys. And small templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CONTROL, USER_DEFINED = 3, 4


class Characters:
    """A tokenizer of one token for each character, and one for each name. User-defined names are read in any text."""

    def __init__(self, names: dict[str, int], *, bos: str | None = None, eos: str | None = None) -> None:
        self.names = list(names)
        self._kinds = names
        self.n_vocab = len(names) + 0x110000
        self.bos = None if bos is None else self.names.index(bos)
        self.eos = None if eos is None else self.names.index(eos)
        self.end_tokens = frozenset() if self.eos is None else frozenset({self.eos})
        self.add_bos, self.add_eos = bos is not None, False

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        tokens, at = [], 0
        readable = [n for n in self.names if parse_special or self._kinds[n] == USER_DEFINED]
        while at < len(text):
            name = max((n for n in readable if text.startswith(n, at)), key=len, default=None)
            tokens.append(len(self.names) + ord(text[at]) if name is None else self.names.index(name))
            at += 1 if name is None else len(name)
        return tokens

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.token_bytes(token, skip_special=skip_special) for token in tokens).decode()

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        if token >= len(self.names):
            return chr(token - len(self.names)).encode()
        hidden = skip_special and self._kinds[self.names[token]] == CONTROL
        return b"" if hidden else self.names[token].encode()

    def token_text(self, token: int) -> str:
        return self.token_bytes(token, skip_special=False).decode()


class FakeModel:
    """Keys and a tokenizer."""

    def __init__(self, names: dict[str, int], template: str | None = None, **keys: Any) -> None:
        self.tokenizer = Characters(names, bos=keys.pop("bos", None), eos=keys.pop("eos", None))
        self.registry = keys.pop("registry", None)
        self.metadata: dict[str, Any] = {
            "tokenizer.ggml.tokens": [name.encode() for name in names],
            "tokenizer.ggml.token_type": list(names.values()),
            **keys,
        }
        if template is not None:
            self.metadata["tokenizer.chat_template"] = template

    def spelt(self, tokens: Sequence[int]) -> list[str]:
        """Runs of characters, and names in brackets."""
        found: list[str] = []
        for token in tokens:
            text = self.tokenizer.token_text(token)
            if token < len(self.tokenizer.names):
                found += [f"[{text}]", ""]
            elif found:
                found[-1] += text
            else:
                found.append(text)
        return [part for part in found if part]


@pytest.fixture
def model_of() -> type[FakeModel]:
    """Makes models: ``model_of({name: kind}, template)``."""
    return FakeModel


@pytest.fixture
def templates() -> dict[str, str]:
    """Small templates, each with another way to write replies."""
    folder = Path(__file__).parent / "templates"
    return {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.jinja"))}
