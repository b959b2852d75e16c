"""A tokenizer's files in GGUF's keys.

SentencePiece's ``tokenizer.model`` is taken where there is one; else ``tokenizer.json``, whose byte-level BPE is GGUF's
``gpt2`` and whose BPE with bytes to fall back on is GGUF's ``llama``. Special tokens, merges and the chat template are
found by the ``gguf`` package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from sis_core.errors import SourceError
from sis_hub.convert.checkpoint import Checkpoint
from sis_hub.convert.pre_tokenizers import pre_tokenizer_name
from sis_hub.convert.sentencepiece_model import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, read_pieces

ABSENT, ADDED = -10_000.0, -1_000.0  # scores of rows without a token, and of tokens that were added
MAX_TOKENS = 1 << 21
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
# Control tokens of some models that their files do not call special (llama.cpp, conversion/base.py).
_CONTROL_NAMES = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
_CONTROL_SHAPES = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>", re.DOTALL)


@define
class _Tokens:
    """Texts, scores and types by id; ids without a token are ``[PADn]`` and unused."""

    texts: list[str]
    scores: list[float]
    types: list[int]

    @classmethod
    def empty(cls, n: int) -> _Tokens:
        return cls([f"[PAD{i}]" for i in range(n)], [ABSENT] * n, [UNUSED] * n)

    def put(self, token: int, text: str, score: float, type: int) -> None:
        """ValueError for an id that has no row in the embedding."""
        if not 0 <= token < len(self.texts):
            raise ValueError(f"token {text[:40]!r} has the id {token}, and the embedding has {len(self.texts)} rows")
        self.texts[token], self.scores[token], self.types[token] = text, score, type


def add_vocabulary(
    checkpoint: Checkpoint,
    n_rows: int,
    keys: Any,
    control: Callable[[Mapping[str, int], Mapping[str, int]], Mapping[str, int]] = lambda named, added: {},
) -> None:
    """Write the tokenizer's keys with the ``gguf`` package's writer.

    Args:
        n_rows: of the embedding: as many tokens are written.
        control: from special tokens and the ids of added tokens to further special tokens, or others.

    Raises:
        SourceError: there is no tokenizer, or none that can be told in GGUF's keys.
    """
    from gguf import SpecialVocab

    if n_rows > MAX_TOKENS:
        checkpoint.refuse(f"has an embedding of {n_rows} rows, more than any vocabulary", "download it again")
    config = checkpoint.json("tokenizer_config.json") or {}
    tokenizer = checkpoint.json("tokenizer.json")
    byte_level = False
    if (checkpoint.folder / "tokenizer.model").is_file():
        tokens = _sentencepiece(checkpoint, n_rows, config, tokenizer)
    elif tokenizer is None:
        checkpoint.refuse("has neither a tokenizer.json nor a tokenizer.model", "download the whole repository")
    else:
        try:
            model = tokenizer["model"]
            byte_level = model["type"] == "BPE" and not model.get("byte_fallback")
            tokens = _bpe(tokenizer, n_rows, byte_level)
            if not byte_level and not _prepends_space(tokenizer):
                keys.add_add_space_prefix(False)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad_tokenizer(checkpoint, error) from error
    if byte_level:
        assert tokenizer is not None
        keys.add_tokenizer_model("gpt2")
        keys.add_tokenizer_pre(pre_tokenizer_name(tokenizer, str(checkpoint.folder / "tokenizer.json")))
    else:
        keys.add_tokenizer_model("llama")
        keys.add_tokenizer_pre("default")
        keys.add_token_scores(tokens.scores)
        if config.get("add_prefix_space") is not None:
            keys.add_add_space_prefix(bool(config["add_prefix_space"]))
    keys.add_token_list(tokens.texts)
    keys.add_token_types(tokens.types)
    try:
        special = SpecialVocab(checkpoint.folder, load_merges=byte_level, n_vocab=n_rows)
        special.add_special_token |= _added_by(tokenizer if byte_level else None, special.add_special_token)
        decoder = config.get("added_tokens_decoder") or {}
        added = {about["content"]: int(token) for token, about in decoder.items()}
        added |= {token["content"]: int(token["id"]) for token in (tokenizer or {}).get("added_tokens") or ()}
        special.special_token_ids |= control(special.special_token_ids, added)
        special.add_to_gguf(keys, quiet=True)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _bad_tokenizer(checkpoint, error) from error


def _sentencepiece(
    checkpoint: Checkpoint, n_rows: int, config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None
) -> _Tokens:
    tokens = _Tokens.empty(n_rows)
    try:
        for i, piece in enumerate(read_pieces(checkpoint.folder / "tokenizer.model")):
            kind = NORMAL if piece.type == USER_DEFINED else piece.type  # as SentencePiece's own library tells them
            tokens.put(i, piece.text.decode("utf-8"), piece.score, kind)
        for text, token in (checkpoint.json("added_tokens.json") or {}).items():
            tokens.put(token, text, ADDED, USER_DEFINED)
        decoder = config.get("added_tokens_decoder") or {}
        added = [{**about, "id": int(token)} for token, about in decoder.items()]
        for about in added or (tokenizer or {}).get("added_tokens") or ():
            _put_added(tokens, about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad_tokenizer(checkpoint, error) from error
    return tokens


def _bpe(tokenizer: Mapping[str, Any], n_rows: int, byte_level: bool) -> _Tokens:
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise ValueError(f"it is of the type {str(model['type'])[:40]!r}, and only BPE is known here")
    tokens = _Tokens.empty(n_rows)
    scores = {} if byte_level else _merge_scores(model["merges"])
    last = -float(len(scores))
    for text, token in model["vocab"].items():
        kind = BYTE if not byte_level and _BYTE_TOKEN.fullmatch(text) else NORMAL
        tokens.put(token, text, scores.get(text, last), kind)
    for about in tokenizer.get("added_tokens") or ():
        _put_added(tokens, about)
    return tokens


def _merge_scores(merges: list[Any]) -> dict[str, float]:
    """A token's score: the lower, the later the first merge that makes it. So SentencePiece numbers its own."""
    scores: dict[str, float] = {}
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores.setdefault(left + right, -float(len(scores)))
    return scores


def _put_added(tokens: _Tokens, about: Mapping[str, Any]) -> None:
    text = about["content"]
    if about.get("special") or text in _CONTROL_NAMES or _CONTROL_SHAPES.fullmatch(text):
        tokens.put(about["id"], text, ADDED, CONTROL)
    else:
        tokens.put(about["id"], text.replace(_SPACE, " "), ADDED, USER_DEFINED)


def _added_by(tokenizer: Mapping[str, Any] | None, found: Mapping[str, bool]) -> dict[str, bool]:
    """Whether a byte-level tokenizer puts tokens around a text: only where its ``post_processor`` says so."""
    step = (tokenizer or {}).get("post_processor") or {}
    kinds = [part.get("type") for part in step.get("processors") or [step]]
    if "ByteLevel" not in kinds:
        return {}
    says = "TemplateProcessing" in kinds
    return {end: says and found.get(end, False) for end in ("bos", "eos")}


def _prepends_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a text begins with a space that nobody typed, as SentencePiece does by default."""
    steps = [tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}]
    steps += [part for step in steps for part in (step.get("normalizers") or step.get("pretokenizers") or ())]
    return any(
        step.get("type") == "Prepend" or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _bad_tokenizer(checkpoint: Checkpoint, error: Exception) -> SourceError:
    what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
    return SourceError(
        f"its tokenizer cannot be read: {what}",
        where=str(checkpoint.folder),
        fix="download the tokenizer's files again",
    )
