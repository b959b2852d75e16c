"""Which of a repository's GGUF files: the one that was named, else the best that fits into memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath

from attrs import frozen

from sis_core.errors import SourceError

#: From the best on. Eight bits cannot be told from sixteen in a text and read twice as fast, so whole floats come last.
QUALITY = (
    "Q8_0", "Q6_K_XL", "Q6_K_L", "Q6_K", "Q5_K_XL", "Q5_K_L", "Q5_K_M", "Q5_K", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_XL",
    "Q4_K_L", "Q4_K_M", "Q4_K", "Q4_K_S", "MXFP4_MOE", "MXFP4", "NVFP4", "Q4_1", "IQ4_NL", "IQ4_XS", "Q4_0", "Q3_K_XL",
    "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K_XL", "Q2_K_L", "Q2_K", "Q2_K_S",
    "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S", "BF16", "F16", "F32",
)  # fmt: skip
WHOLE_FLOATS = ("BF16", "F16", "F32")
#: Beside the weights: the cache of a short context, working memory and the program.
ROOM_FACTOR, ROOM_BYTES = 1.1, 300 << 20

_SYNONYMS = {"FP16": "F16", "FP32": "F32"}
_LABEL = re.compile(
    r"(?<![A-Za-z0-9])(?:I?Q[1-8]_(?:K_(?:XL|[SML])|K|NL|XXS|XS|[SM01])|TQ[12]_0|MXFP4_MOE|MXFP4|NVFP4|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PART = re.compile(r"(?P<stem>.+)-(?P<no>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)
_NOT_MODELS = re.compile(r"(?:^|[/._-])(?:mmproj|imatrix|lora|adapter)(?=[/._-])", re.IGNORECASE)


@frozen
class Candidate:
    """One model of a repository.

    Attributes:
        files: its parts in order; usually one.
        label: its quantisation as its file name says it, in GGUF's spelling; empty where the name says none.
        n_bytes: of all parts.
    """

    files: tuple[str, ...]
    label: str
    n_bytes: int

    @property
    def needs(self) -> int:
        """Bytes of memory it takes to run it, roughly."""
        return int(self.n_bytes * ROOM_FACTOR) + ROOM_BYTES

    def __str__(self) -> str:
        return self.label or self.files[0]


def label_of(path: str) -> str:
    """The quantisation that a file's name, or else its folder, states; empty when neither does."""
    found = _LABEL.findall(PurePosixPath(path).name) or _LABEL.findall(path)
    label = found[-1].upper() if found else ""
    return _SYNONYMS.get(label, label)


def candidates(sizes: Mapping[str, int]) -> list[Candidate]:
    """The models among a repository's files (path -> bytes), those that are split put together; no projectors."""
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    counts: dict[str, int] = {}
    for path in sorted(sizes):
        if not path.lower().endswith(".gguf") or _NOT_MODELS.search(path):
            continue
        part = PART.fullmatch(path)
        stem, no, count = (part["stem"], int(part["no"]), int(part["count"])) if part else (path, 1, 1)
        parts[stem][no], counts[stem] = path, count
    return [
        Candidate(tuple(files), label_of(files[0]), sum(sizes[file] for file in files))
        for stem, numbered in parts.items()
        if sorted(numbered) == list(range(1, counts[stem] + 1))
        for files in [[numbered[no] for no in sorted(numbered)]]
    ]


def lacking(sizes: Mapping[str, int]) -> list[str]:
    """Parts that are not there of models that are split, where others are."""
    there = {path: part for path in sorted(sizes) if (part := PART.fullmatch(path))}
    wanted = {
        f"{part['stem']}-{no:05}-of-{part['count']}.gguf": None
        for part in there.values()
        for no in range(1, min(int(part["count"]), 1000) + 1)
    }
    return [path for path in wanted if path not in there]


def named(choice: str, among: Iterable[Candidate], *, where: str) -> Candidate:
    """The candidate that ``choice`` names: a file, its unique end, or a quantisation in any case.

    Raises:
        SourceError: none or several have that name; the message lists what there is.
    """
    known = list(among)
    if choice.lower().endswith(".gguf"):
        found = [c for c in known if choice in c.files] or [
            c for c in known if any(f.endswith(f"/{choice}") for f in c.files)
        ]
    else:
        wanted = _SYNONYMS.get(choice.upper(), choice.upper())
        found = [c for c in known if c.label == wanted] or [c for c in known if _has_word(c.files[0], choice)]
    if len(found) == 1:
        return found[0]
    if found:
        files = ", ".join(c.files[0] for c in found)
        raise SourceError(f"{choice!r} names {len(found)} models: {files}", where=where, fix="name one file")
    labels = [str(c) for c in known]
    close = get_close_matches(choice.upper(), [label.upper() for label in labels], 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise SourceError(f"has no {choice!r}{hint}", where=where, fix=f"it has: {', '.join(labels) or 'no GGUF file'}")


def best(among: Iterable[Candidate], memory: int, *, where: str) -> tuple[Candidate, str]:
    """The best candidate that fits into ``memory`` bytes, and why in a clause.

    Raises:
        SourceError: none fits; the message has the sum for the smallest.
    """
    known = sorted(among, key=_rank)
    fitting = [c for c in known if c.needs <= memory]
    if not fitting:
        smallest = min(known, key=lambda c: c.n_bytes)
        raise SourceError(
            f"even its smallest model, {smallest}, needs about {_gib(smallest.needs)} of memory, "
            f"and {_gib(memory)} are free",
            where=where,
            fix=f"take a smaller model, or name this one all the same: {where}:{smallest}",
        )
    chosen = fitting[0]
    of = f"of {len(known)} the best that fits" if len(known) > 1 else "the only one"
    return chosen, f"{chosen}, {_gib(chosen.n_bytes)}: {of} into {_gib(memory)} of free memory"


def _rank(candidate: Candidate) -> tuple[int, int]:
    known = candidate.label in QUALITY
    floats = candidate.label in WHOLE_FLOATS
    place = QUALITY.index(candidate.label) if known else QUALITY.index("BF16") - 0.5
    return int(2 * place), candidate.n_bytes if floats else -candidate.n_bytes


def _has_word(path: str, word: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", path, re.IGNORECASE) is not None


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"
