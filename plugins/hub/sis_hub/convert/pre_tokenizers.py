"""How a byte-level tokenizer cuts a text into words: GGUF's name for what a tokenizer.json spells out.

GGUF names what llama.cpp knows (src/llama-vocab.cpp); a tokenizer.json has the regular expressions themselves. Names
that mean the same cut are one here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sis_core.errors import SourceError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS = "each digit"
_CASELESS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATHS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CASELESS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_END}"
QWEN2 = rf"{_CASELESS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_END}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = rf"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|\p{{N}}{_PATHS}"
GPT4O = rf"{_WORD}{_UPPER}*{_LOWER}+{_CASELESS}?|{_WORD}{_UPPER}+{_LOWER}*{_CASELESS}?|\p{{N}}{{1,3}}{_PATHS}"

#: Steps in order -> name, and the name where whole words are taken without merging.
_NAMES: dict[tuple[str, ...], tuple[str, str]] = {
    (GPT2,): ("gpt-2", "gpt-2"),
    (DIGITS, GPT2): ("smollm", "smollm"),
    (LLAMA3,): ("dbrx", "llama-bpe"),
    (QWEN2,): ("qwen2", "qwen2"),
    (TEKKEN,): ("tekken", "tekken"),
    (GPT4O,): ("gpt-4o", "gpt-4o"),
}


def pre_tokenizer_name(tokenizer: Mapping[str, Any], where: str) -> str:
    """GGUF's ``tokenizer.ggml.pre`` for a tokenizer.json.

    Raises:
        SourceError: it cuts words in a way that has no name here.
    """
    steps = tuple(_steps(tokenizer.get("pre_tokenizer"), where))
    if steps not in _NAMES:
        raise SourceError(
            f"its tokenizer cuts words in a way that is not known here: {' then '.join(steps)[:200] or 'not at all'}",
            where=where,
            fix="look for a GGUF file of this model",
        )
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    return _NAMES[steps][whole_words]


def _steps(step: Any, where: str) -> Iterator[str]:
    """The patterns of a ``pre_tokenizer``, in order; what only maps bytes to letters is no step."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Sequence":
        for part in step.get("pretokenizers") or ():
            yield from _steps(part, where)
    elif kind == "ByteLevel":
        if step.get("use_regex", True):
            yield GPT2
    elif kind == "Digits" and step.get("individual_digits"):
        yield DIGITS
    elif kind == "Split" and isinstance(step.get("pattern"), dict) and "Regex" in step["pattern"]:
        yield str(step["pattern"]["Regex"])
    else:
        yield str(kind)
