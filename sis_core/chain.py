"""From what a user typed to a chain of samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sis_core.errors import SamplerError
from sis_core.registry import Registry
from sis_core.sampler import Sampler


def make_chain(
    registry: Registry,
    sampler: str | Sampler | Sequence[Sampler] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Sampler]:
    """The chain for one sampler's name (or ready samplers) and options of any sampler by field name."""
    if isinstance(sampler, Sampler):
        return [sampler]
    if sampler is not None and not isinstance(sampler, str):
        return list(sampler)
    chosen: type[Sampler] = registry.get("samplers", sampler or "greedy", where="--sampler")
    known = {field.name for field in attrs.fields(chosen)}
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if unknown := set(given) - known:
        raise SamplerError(f"has no option {sorted(unknown)[0]!r}", where=f"sampler {chosen.name}")
    return [chosen(**given)]
