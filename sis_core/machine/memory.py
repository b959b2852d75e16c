"""How much memory there is, and whether a model fits into it."""

from __future__ import annotations

import psutil
from attrs import frozen

from sis_core.errors import MemoryLimitError
from sis_core.machine.cgroup import free_memory

MIB = 1 << 20


@frozen
class MemoryPlan:
    """Bytes a model will need: weights in pages of its file, packed or decoded weights, its cache, room for a step."""

    weights: int
    packed: int
    cache: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.anonymous

    @property
    def anonymous(self) -> int:
        """What the system cannot drop and read again."""
        return self.packed + self.cache + self.working

    def __str__(self) -> str:
        parts = [("in place", self.weights), ("packed", self.packed), ("cache", self.cache), ("working", self.working)]
        return (
            " + ".join(f"{name} {size / MIB:,.0f}" for name, size in parts if size) + f" = {self.total / MIB:,.0f} MiB"
        )

    def check(self, limit: int, where: str) -> None:
        """MemoryLimitError with the sum when it is more than ``limit`` bytes."""
        if self.total > limit:
            raise MemoryLimitError(
                f"needs {self}, but {limit / MIB:,.0f} MiB are free",
                where=where,
                fix="ask for a shorter context (--ctx), use a smaller file, or close other programs",
            )


def available_memory() -> int:
    """Bytes that can be used without swapping, within the limit of this process's control group if it has one."""
    available, allowed = int(psutil.virtual_memory().available), free_memory()
    return available if allowed is None else min(available, allowed)


def memory_limit_or_free(memory_limit: int | None) -> int:
    """Bytes that may be used: what the user said, or what is free now."""
    return available_memory() if memory_limit is None else memory_limit
