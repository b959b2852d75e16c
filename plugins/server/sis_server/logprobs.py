"""Log-probabilities as OpenAI's two APIs write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sis_core.texts.request import Piece, TokenLogprob
from sis_core.tokenizer import Tokenizer

LEAST = -9999.0  # JSON has no infinity


def of_chat(piece: Piece, tokenizer: Tokenizer) -> dict[str, Any]:
    """One token of ``choices[].logprobs.content``."""
    assert piece.token is not None
    own = _entry(TokenLogprob(piece.token, piece.logprob or 0.0), tokenizer)
    return {**own, "top_logprobs": [_entry(top, tokenizer) for top in piece.top]}


def _entry(found: TokenLogprob, tokenizer: Tokenizer) -> dict[str, Any]:
    data = tokenizer.token_bytes(found.token, skip_special=False)
    return {"token": data.decode("utf-8", "replace"), "logprob": max(found.logprob, LEAST), "bytes": list(data)}


class OfText:
    """``choices[].logprobs`` of the older API: four lists of one item for each token.

    Args:
        offset: characters of the text before the first token.
    """

    def __init__(self, tokenizer: Tokenizer, offset: int = 0) -> None:
        self._tokenizer, self._offset = tokenizer, offset
        self.clear()

    def add(self, token: int, logprob: float | None, top: Sequence[TokenLogprob]) -> None:
        """One more token; the first of a prompt has no probability."""
        text = self._spelt(token)
        self._tokens.append(text)
        self._values.append(None if logprob is None else max(logprob, LEAST))
        self._offsets.append(self._offset)
        likely: dict[str, float] = {}
        for found in top:
            spelt = self._spelt(found.token)
            likely[spelt] = max(found.logprob, likely.get(spelt, LEAST))
        self._top.append(None if logprob is None else likely)
        self._offset += len(text)

    def take(self) -> dict[str, Any]:
        """What was added since the last time."""
        taken = {
            "tokens": self._tokens,
            "token_logprobs": self._values,
            "top_logprobs": self._top,
            "text_offset": self._offsets,
        }
        self.clear()
        return taken

    def clear(self) -> None:
        self._tokens: list[str] = []
        self._values: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def _spelt(self, token: int) -> str:
        return self._tokenizer.token_bytes(token, skip_special=False).decode("utf-8", "replace")
