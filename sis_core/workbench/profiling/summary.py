"""From spans to rows: what part, what layer and whose plugin took how much of a token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from attrs import frozen

from sis_core.workbench.profiling.recorder import Span

INNER = ("linear", "decode")
LEFT = {
    "draw": "draw",
    "step": "Python: cache pages",
    "session": "Python: session",
    "token": "Python: text and loop",
}
LAYER_PARTS = ("attention", "feed-forward", "attention + feed-forward", "layer")


@frozen
class Row:
    """Milliseconds a token, and their share of all."""

    name: str
    owner: str
    ms: float
    share: float
    calls: float


@frozen
class Profile:
    """Averages over the generated tokens, without the prompt and the first token, which also pay for warming up.

    Attributes:
        n_tokens: tokens averaged over.
        ms: mean milliseconds a token; ``median_ms`` the median.
        prompt_ms: the prompt, up to its first new token.
        parts: embedding, attention, feed-forward, logits, each sampler, and Python between them; they add up to ``ms``.
        layers: attention and feed-forward of each layer.
        plugins: time spent in each plugin's own code; they add up to ``ms``.
        linears: matrices by role, where they are bound one by one.
    """

    n_tokens: int
    ms: float
    median_ms: float
    prompt_ms: float
    parts: tuple[Row, ...]
    layers: tuple[Row, ...]
    plugins: tuple[Row, ...]
    linears: tuple[Row, ...]


def summarise(spans: Sequence[Span]) -> Profile:
    """Average ``spans`` of one recorder; there must be a generated token after the prompt."""
    whole = [span for span in spans if span.part == "token"]
    chosen = whole[1:] or whole
    tokens = {span.token for span in chosen}
    inside = [span for span in spans if span.token in tokens]
    n, total = len(chosen), sum(span.ns for span in chosen)

    def rows(groups: dict[tuple[str, str], list[int]], by_time: bool = False) -> tuple[Row, ...]:
        made = [
            Row(name, owner, sum(times) / n / 1e6, sum(times) / total, len(times) / n)
            for (name, owner), times in groups.items()
        ]
        return tuple(sorted(made, key=lambda row: -row.ms) if by_time else made)

    return Profile(
        n,
        total / n / 1e6,
        median(span.ns for span in chosen) / 1e6,
        sum(span.ns for span in spans if span.part == "prompt") / 1e6,
        rows(_parts(inside)),
        rows(_layers(inside)),
        rows(_plugins(inside), by_time=True),
        rows(_linears(inside), by_time=True),
    )


def _parts(spans: Sequence[Span]) -> dict[tuple[str, str], list[int]]:
    """Parts in the order in which a step runs them, and what is left between them."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for part in ("embedding", *LAYER_PARTS, "whole model"):
        for span in _of(spans, part):
            groups[(part, span.owner)].append(span.ns)
    for span in spans:  # an op of a family's own
        if span.layer is not None and span.part not in (*LAYER_PARTS, *INNER):
            groups[(span.part, span.owner)].append(span.ns)
    for span in _of(spans, "logits"):
        groups[("logits", span.owner)].append(span.ns)
    for span in _of(spans, "sampler"):
        groups[(f"sampler {span.detail}", span.owner)].append(span.ns)
    for part, name in LEFT.items():
        for span in _of(spans, part):
            groups[(name, span.owner)].append(span.self_ns)
    return dict(groups)


def _of(spans: Sequence[Span], part: str) -> list[Span]:
    return [span for span in spans if span.part == part]


def _layers(spans: Sequence[Span]) -> dict[tuple[str, str], list[int]]:
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for span in spans:
        if span.layer is not None and span.part not in INNER:
            groups[(f"{span.layer} {span.part}", span.owner)].append(span.ns)
    return dict(groups)


def _plugins(spans: Sequence[Span]) -> dict[tuple[str, str], list[int]]:
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for span in spans:
        groups[(span.owner, span.owner)].append(span.self_ns)
    return dict(groups)


def _linears(spans: Sequence[Span]) -> dict[tuple[str, str], list[int]]:
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for span in spans:
        if span.part == "linear":
            role = span.detail.split(".", 2)[2] if span.detail.startswith("blk.") else span.detail
            groups[(role.removesuffix(".weight"), span.owner)].append(span.ns)
    return dict(groups)
