"""Tokens with a meaning of their own: the ends of texts and turns, control tokens, and their names inside a text."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from sis_core.errors import TokenizerError
from sis_tokenizers.vocabulary import NO_TOKEN, PREFIX, Kind, Vocabulary, read_flag, read_id

log = logging.getLogger(__name__)

# Names that end a text or a turn wherever they are in a vocabulary. Source: llama.cpp, src/llama-vocab.cpp.
END_NAMES = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# Names around a hole to fill; to generate one of `FILL_ENDS` ends a text as well.
FILL_NAMES = (
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
    "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
    "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>",
    "▁<MID>", "<|code_middle|>", "<|middle|>",
)  # fmt: skip
FILL_ENDS = (
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
    "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip
# Names of the harmony format that are text to their reader.
SHOWN_NAMES = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
HIDDEN = frozenset({Kind.UNKNOWN, Kind.CONTROL, Kind.UNUSED})  # kinds that add no text
SPACES = " \t\n\v\f\r"


@frozen(eq=False)
class Specials:
    """What a vocabulary's special tokens are.

    Attributes:
        kinds: of every token, with the well-known names marked.
        end_tokens: ids that end a text.
        strips: ids that take the white space after them when they are read in a text.
    """

    bos: int | None
    eos: int | None
    unk: int | None
    add_bos: bool
    add_eos: bool
    end_tokens: frozenset[int]
    kinds: list[int]
    strips: frozenset[int]


@frozen
class Defaults:
    """What llama.cpp assumes where the file says nothing."""

    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    add_bos: bool = False


def read_specials(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, defaults: Defaults, made: Collection[str] = ()
) -> Specials:
    """What the file says and the well-known names add.

    Args:
        made: spellings that merging can make. Such a token is text that was learnt, whatever its name: Qwen2's
            ``</s>`` closes an HTML element.

    Raises:
        TokenizerError: an id is outside the vocabulary, or a flag adds a token that nobody names.
    """

    def named(key: str, default: int | None = None) -> int | None:
        found = read_id(metadata, key, len(vocabulary))
        if found is None and PREFIX + key not in metadata and default is not None and default < len(vocabulary):
            return default
        return found

    bos, eos = named("bos_token_id", defaults.bos), named("eos_token_id", defaults.eos)
    unk = _inside(metadata, "unknown_token_id", vocabulary)
    if unk is None and PREFIX + "unknown_token_id" not in metadata:
        unk = named("unknown_token_id", defaults.unk)
    _inside(metadata, "padding_token_id", vocabulary)
    ends = {eos, named("eot_token_id"), named("eom_token_id")} - {None}
    add_bos = _adds(metadata, "bos", bos, defaults.add_bos)
    add_eos = _adds(metadata, "eos", eos, False)
    kinds, end_tokens = _marked(vocabulary, {end for end in ends if end is not None}, made)
    strips = _strips(metadata, vocabulary, kinds)
    return Specials(bos, eos, unk, add_bos, add_eos, end_tokens, kinds, strips)


def _inside(metadata: Mapping[str, Any], key: str, vocabulary: Vocabulary) -> int | None:
    """An id that no text needs: one outside the vocabulary is only worth a warning."""
    value = metadata.get(PREFIX + key)
    if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value < len(vocabulary):
        if value not in (NO_TOKEN, -1):
            log.warning("%s%s is %d, outside the %d tokens; not used", PREFIX, key, value, len(vocabulary))
        return None
    return read_id(metadata, key, len(vocabulary))


def _adds(metadata: Mapping[str, Any], which: str, token: int | None, default: bool) -> bool:
    key = f"add_{which}_token"
    adds = read_flag(metadata, key, default)
    if adds and token is None and PREFIX + key not in metadata:
        log.warning("%s%s_token_id is missing: nothing is put before a text", PREFIX, which)
        return False
    if adds and token is None:
        raise TokenizerError(
            f"asks for a token before or after every text, but {PREFIX}{which}_token_id is missing", where=PREFIX + key
        )
    return adds


def _marked(vocabulary: Vocabulary, ends: set[int], made: Collection[str]) -> tuple[list[int], frozenset[int]]:
    """Kinds with the well-known names marked, and the ids that end a text. Source: llama.cpp, src/llama-vocab.cpp."""
    kinds, known = list(vocabulary.kinds), (*END_NAMES, *FILL_NAMES, *FILL_ENDS, *SHOWN_NAMES, "<|tool_response>")
    ids = {
        name: vocabulary.ids[name]
        for name in known
        if name in vocabulary.ids and (name not in made or kinds[vocabulary.ids[name]] != Kind.NORMAL)
    }
    for name in (*END_NAMES, *FILL_NAMES, *FILL_ENDS):
        if name in ids:
            kinds[ids[name]] = Kind.CONTROL
    ends |= {ids[name] for name in (*END_NAMES, *FILL_ENDS) if name in ids}
    for name in SHOWN_NAMES:
        if name in ids:
            kinds[ids[name]] = Kind.USER_DEFINED
    harmony = {"<|return|>", "<|call|>"} <= ids.keys() or (
        "<|flush|>" in ids and not ids.keys().isdisjoint({"<|call|>", "<|calls|>"})
    )
    if harmony and "<|end|>" in ids:  # it ends a message there, not the answer
        ends.discard(ids["<|end|>"])
        kinds[ids["<|end|>"]] = Kind.USER_DEFINED
    if "<|tool_response>" in ids and "</s>" in ids:  # plain text in Gemma 4
        ends.discard(ids["</s>"])
        kinds[ids["</s>"]] = Kind.NORMAL
    return kinds, frozenset(ends)


def _strips(metadata: Mapping[str, Any], vocabulary: Vocabulary, kinds: list[int]) -> frozenset[int]:
    """Phi-3's special tokens swallow the white space that follows; GGUF has no key for it, llama.cpp knows by name."""
    name = str(metadata.get("general.name", "")).lower()
    if "phi-3" not in name and "phi3" not in name:
        return frozenset()
    kept = {"<unk>", "<s>", "<|endoftext|>"}
    special = {Kind.CONTROL, Kind.USER_DEFINED, Kind.UNKNOWN}
    return frozenset(i for i, kind in enumerate(kinds) if kind in special and vocabulary.texts[i] not in kept)


class Partition:
    """Cuts a text at the names of special tokens.

    Longest names first, each from left to right, as llama.cpp does. User-defined tokens are always read; control and
    unknown ones only when the caller says that it trusts the text.
    """

    def __init__(self, vocabulary: Vocabulary, specials: Specials) -> None:
        def names(*kinds: Kind) -> list[tuple[str, int]]:
            found = [
                (vocabulary.texts[i], i)
                for i, kind in enumerate(specials.kinds)
                if kind in kinds and vocabulary.texts[i]
            ]
            return sorted(found, key=lambda pair: -len(pair[0].encode("utf-8", "surrogateescape")))

        self._user = names(Kind.USER_DEFINED)
        self._all = names(Kind.USER_DEFINED, Kind.CONTROL, Kind.UNKNOWN)
        self._strips = specials.strips

    def cut(self, text: str, *, parse_special: bool) -> list[str | int]:
        """Pieces of text and ids of the special tokens between them, in order; no empty pieces."""
        parts: list[str | int] = []
        at = 0
        for start, stop, token in self._found(text, self._all if parse_special else self._user):
            if start > at:
                parts.append(text[at:start])
            parts.append(token)
            at = stop
        if at < len(text):
            parts.append(text[at:])
        return parts

    def _found(self, text: str, names: list[tuple[str, int]]) -> list[tuple[int, int, int]]:
        """Start, stop and id of every special token. Time grows with the text, not with how many names are in it."""
        found: list[tuple[int, int, int]] = []
        taken = bytearray()  # 1 for each character that belongs to a special token
        for name, token in names:
            start = text.find(name)
            if start >= 0 and not taken:
                taken = bytearray(len(text))
            while start >= 0:
                stop = start + len(name)
                overlap = taken.find(1, start, stop)
                if overlap >= 0:
                    free = taken.find(0, overlap)
                    start = text.find(name, free) if free >= 0 else -1
                    continue
                while token in self._strips and stop < len(text) and text[stop] in SPACES and not taken[stop]:
                    stop += 1
                taken[start:stop] = b"\1" * (stop - start)
                found.append((start, stop, token))
                start = text.find(name, stop)
        return sorted(found)
