"""Metadata of small vocabularies, learnt here from a short text, for tests of tokenizers.

The merges are learnt without cutting the text into words first, so that tokens reach over words, digits and line ends
and every cut that a pre-tokenizer makes shows in the ids.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any

import tiny_models

TEXT = """The keeper of the lighthouse wrote: "It's 1234567 steps, isn't it?" We'll see; they've 12 hens, 345 eggs.
def f(x):\n    return x+1  # total: 3.14\n\n\n\t\tfor i in range(10):\n\t\t\tprint(i, i+1)\r\n\r\nDON'T STOP! We'LL go..
Größe, señor, нещо на български, 漢字かな交じり文、한국어。 5 ½ ٣٤٥ ⅷ 😀😀👍🏽 e\u0301e\u0301\u00a0\u3000x   y    z    .
$100+$200=$300 <tag>`code`</tag> ~~~ ^^^ || && 'quoted' ''two'' (a)(b)[c]{d} 12 12 12 12 == a_b_c; #1 #22 100% @user
"""
SPACE = "▁"


def learn(symbols: list[str], n: int) -> list[tuple[str, str]]:
    """The ``n`` most frequent pairs, each joined before the next is counted."""
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        counts = Counter(pairwise(symbols))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        pairs.append(best)
        joined: list[str] = []
        for symbol in symbols:
            if joined and (joined[-1], symbol) == best:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return pairs


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    names = tiny_models.byte_names()
    return tuple(learn([names[byte] for byte in TEXT.encode()], 300))


@cache
def _pieces() -> tuple[str, ...]:
    text = TEXT.replace(" ", SPACE)
    pairs = learn(list(text), 250)
    return tuple(dict.fromkeys([*("".join(pair) for pair in pairs), *sorted(set(text) - set("字😀#½"))]))


def byte_level(**changes: Any) -> dict[str, Any]:
    """A ``gpt2`` vocabulary: ``changes`` replace keys of ``tokenizer.ggml.``, None removes one."""
    merges = _merges()
    made = dict.fromkeys([*("".join(pair) for pair in merges), "Ġkeepers"])  # no merges lead to the last one
    extra = ["<|begin|>", "<|im_end|>", "<user>"]
    tokens = [*tiny_models.byte_names(), *made, *extra]
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [1] * (256 + len(made)) + [3, 3, 4],
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": tokens.index("<|begin|>"),
        "eos_token_id": tokens.index("<|im_end|>"),
    }
    return _changed(values, changes)


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """A ``llama`` vocabulary: ``changes`` replace keys of ``tokenizer.ggml.``, None removes one."""
    pieces = _pieces()
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    values = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return _changed(values, changes)


def characters(**changes: Any) -> dict[str, Any]:
    """A ``gemma4`` vocabulary: ``changes`` replace keys of ``tokenizer.ggml.``, None removes one."""
    lines = [line.replace(" ", SPACE) for line in TEXT.splitlines()]
    pairs = learn([symbol for line in lines for symbol in line], 250)
    letters = sorted({*"".join(lines)} - set("字😀#½"))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = list(dict.fromkeys(["".join(pair) for pair in pairs] + letters))
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "\n", "\n\n", *bytes_, *pieces]
    values = {
        "model": "gemma4",
        "tokens": tokens,
        "token_type": [3, 3, 3, 3, 1, 1] + [6] * 256 + [1] * len(pieces),
        "merges": [" ".join(pair) for pair in pairs],
        "bos_token_id": 2,
        "eos_token_id": 1,
        "unknown_token_id": 3,
    }
    return _changed(values, changes)


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{key}": value for key, value in (values | changes).items() if value is not None}
