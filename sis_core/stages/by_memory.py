"""As few stages as the memory of machines needs.

Weights count as they lie in the file: a stage that has room for more packs them. What one text of the context leaves in
a layer counts to that layer, and what a step works in to each stage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from attrs import frozen

from sis_core.architecture import ModelConfig
from sis_core.backend import views_nbytes
from sis_core.block import Network
from sis_core.cache.kv_types import value_bytes
from sis_core.cache.tables import text_nbytes
from sis_core.errors import MemoryLimitError
from sis_core.loading.fitting import MIN_CTX, working_nbytes
from sis_core.machine.memory import MIB, MemoryPlan, memory_limit_or_free
from sis_core.stages.split import split_into, weights_nbytes

MOST_NAMED = 8  # machines in an error


class Room:
    """Says how much memory is free where it was made."""

    def free(self, memory_limit: int | None) -> int:
        """Bytes; what the user said in place of them."""
        return memory_limit_or_free(memory_limit)


@frozen
class Placed:
    """
    Attributes:
        stages: the machine and the layers of each.
        n_ctx: tokens of context that there is room for.
    """

    stages: tuple[tuple[str, range], ...]
    n_ctx: int


class Needs:
    """What a model's layers take where they are bound.

    Args:
        n_ctx: the tokens of context that were asked for; None for as many as there is room for.
    """

    def __init__(self, config: ModelConfig, network: Network, kv_type: str, n_ctx: int | None) -> None:
        self._network, self._value_bytes = network, value_bytes(kv_type)
        self._least, self._most = (min(MIN_CTX, config.n_ctx), config.n_ctx) if n_ctx is None else (n_ctx, n_ctx)
        self._weights = weights_nbytes(network)
        caches = sum(self._caches(self._least))
        self.whole = MemoryPlan(views_nbytes(network.weights()), 0, caches, working_nbytes(config, network))
        """Of all layers in one place, with the least context."""

    def place(self, free: Mapping[str, int], where: str) -> Placed:
        """Stages on the machines with most memory ``free``, and no more of them than are needed.

        MemoryLimitError, with what is needed and what each machine has, where all together are too little.
        """
        names = sorted(free, key=lambda name: -free[name])  # of equals the first, which is this machine
        for n in range(1, min(len(names), self._network.n_layer) + 1):
            rooms = [free[name] - self.whole.working for name in names[:n]]
            if n == 1:
                rooms[0] += sum(self._weights) - self.whole.weights  # a tied head is there once
            if self._split(rooms, self._least) is not None:
                n_ctx = self._longest(rooms)
                ranges = self._split(rooms, n_ctx)
                assert ranges is not None
                return Placed(tuple(zip(names, ranges, strict=False)), n_ctx)
        raise MemoryLimitError(
            f"needs {self.whole}, and {self.whole.working / MIB:,.0f} MiB more for each stage after the first, but "
            f"{sum(free.values()) / MIB:,.0f} MiB are free: {_listed(names, free)}",
            where=where,
            fix="ask for a shorter context (--ctx), use a smaller file, or add machines",
        )

    def _split(self, rooms: Sequence[float], n_ctx: int) -> tuple[range, ...] | None:
        sizes = [sum(pair) for pair in zip(self._weights, self._caches(n_ctx), strict=True)]
        return None if sum(sizes) > sum(rooms) else split_into(self._network, sizes, rooms)

    def _longest(self, rooms: Sequence[float]) -> int:
        """The most tokens of context that these rooms hold."""
        longer = range(self._least, self._most + 1)
        return longer[bisect_right(longer, False, key=lambda n_ctx: self._split(rooms, n_ctx) is None) - 1]

    def _caches(self, n_ctx: int) -> list[int]:
        """Bytes that a text of so many tokens leaves in each layer."""
        states = [block.state for block in self._network.blocks]
        return [0 if state is None else int(text_nbytes(state, self._value_bytes, n_ctx)) for state in states]


def _listed(names: Sequence[str], free: Mapping[str, int]) -> str:
    told = ", ".join(f"{free[name] / MIB:,.0f} on {name}" for name in names[:MOST_NAMED])
    return told if len(names) <= MOST_NAMED else f"{told} and less on {len(names) - MOST_NAMED} more"
