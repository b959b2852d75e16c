"""Which layers go to which stage."""

from __future__ import annotations

from functools import cache

from sis_core.backend import views_nbytes
from sis_core.block import Network
from sis_core.errors import ModelError


def split(network: Network, n: int, where: str = "") -> tuple[range, ...]:
    """So many ranges of layers that the one with most bytes of weights has as few as possible.

    The embedding counts to the first and the head to the last. Layers that read an earlier one's state stay with it.
    ModelError when there are not so many ranges.
    """
    n_layer = network.n_layer
    sizes = [views_nbytes(network.weights(range(i, i + 1))) for i in range(n_layer)]
    readers = [(block.reads_state_of, i) for i, block in enumerate(network.blocks) if block.reads_state_of is not None]
    cuts = [i for i in range(1, n_layer) if not any(source < i <= reader for source, reader in readers)]
    if n > len(cuts) + 1:
        raise ModelError(
            f"its {n_layer} layers can be cut into {len(cuts) + 1} stages at most, not {n}",
            where=where,
            fix="ask for fewer --stages",
        )

    @cache
    def best(start: int, parts: int) -> tuple[int, tuple[range, ...]]:
        """The layers from ``start`` on in so many parts: the bytes of the largest, and the parts."""
        if parts == 1:
            return sum(sizes[start:]), (range(start, n_layer),)
        ways = []
        for cut in cuts:
            if cut > start and sum(other > cut for other in cuts) >= parts - 2:
                most, rest = best(cut, parts - 1)
                ways.append((max(sum(sizes[start:cut]), most), (range(start, cut), *rest)))
        return min(ways, key=lambda way: (way[0], -way[1][0].stop))

    return best(0, n)[1]
