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
    """Bytes that can be used without swapping, within the limits of this process and of its control group."""
    limits = (int(psutil.virtual_memory().available), free_memory(), _free_addresses())
    return min(limit for limit in limits if limit is not None)


def _free_addresses() -> int | None:
    """Bytes of address space that this process may still take, or None where nothing limits it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else max(0, limit - int(psutil.Process().memory_info().vms))


def memory_limit_or_free(memory_limit: int | None) -> int:
    """Bytes that may be used: what the user said, or what is free now."""
    return available_memory() if memory_limit is None else memory_limit
