"""What `check_sampler` tries: logits of many kinds, options at their ends, and values that an option must refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np

from sis_core.arrays import F32
from sis_core.sampler import Sampler


def with_ends(sampler: type[Sampler], fields: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The given options, and one option after the other at its ends."""
    yield "", fields
    for field in attrs.fields(sampler) if attrs.has(sampler) else ():
        for end in ("low", "high"):
            value = field.metadata.get(end)
            if value is not None and math.isfinite(value):
                yield f"{field.name}={value:g}, ", fields | {field.name: value}


def logits_of_kinds() -> Iterator[tuple[str, F32]]:
    """Names and logits of every kind that a sampler may meet."""
    generator = np.random.Generator(np.random.Philox(7))

    def normal(n: int, scale: float) -> F32:
        return (generator.standard_normal(n) * scale).astype(np.float32)

    yield "random logits", normal(300, 3)
    yield "very different logits", normal(300, 50)
    yield "logits of a large vocabulary", normal(20_000, 3)
    yield "logits with ties", np.round(normal(300, 2))
    yield "equal logits", np.zeros(300, np.float32)
    yield "equal negative logits", np.full(300, -7.25, np.float32)
    yield "n_vocab 1", normal(1, 1)
    yield "n_vocab 2", normal(2, 1)
    yield "logits of 1e30 and -1e30", np.where(normal(300, 1) > 0, np.float32(1e30), np.float32(-1e30))
    masked = normal(300, 3)
    masked[generator.permutation(300)[:200]] = -np.inf
    yield "logits of which some are minus infinity", masked
    single = np.full(300, -np.inf, np.float32)
    single[123] = -4
    yield "logits of which one is not minus infinity", single


def shapes() -> Iterator[tuple[str, F32]]:
    """Distributions of 30 tokens that look like a language model's, like noise, and like nothing learnt."""
    generator = np.random.Generator(np.random.Philox(11))
    yield "Zipf's law", generator.permutation(2 - 1.1 * np.log(np.arange(1, 31))).astype(np.float32)
    yield "normal logits", (generator.standard_normal(30) * 1.5).astype(np.float32)
    yield "nearly equal logits", (generator.standard_normal(30) * 0.2).astype(np.float32)


def nonsense(field: attrs.Attribute[Any]) -> list[Any]:
    """Values that a field must refuse."""
    if field.type not in (int, float):
        return []
    values: list[Any] = [math.nan, math.inf, -math.inf, "much", None]
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if field.type is int:
        values += [2.5, *([low - 1] if low is not None else []), *([high + 1] if high is not None else [])]
    else:
        values += [math.nextafter(end, away) for end, away in ((low, -math.inf), (high, math.inf)) if end is not None]
    return values
