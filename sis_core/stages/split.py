"""Which layers go to which stage."""

from __future__ import annotations

from collections.abc import Sequence

from sis_core.backend import views_nbytes
from sis_core.block import Network
from sis_core.errors import ModelError


def split(network: Network, n: int, where: str = "") -> tuple[range, ...]:
    """So many ranges of layers that the one with most bytes of weights has as few as possible.

    ModelError when there are not so many ranges.
    """
    if n > len(cuts := _cuts(network)) - 1:
        raise ModelError(
            f"its {network.n_layer} layers can be cut into {len(cuts) - 1} stages at most, not {n}",
            where=where,
            fix="ask for fewer --stages",
        )
    found = split_into(network, weights_nbytes(network), [float("inf")] * n)
    assert found is not None
    return found


def weights_nbytes(network: Network) -> list[int]:
    """Bytes of each layer's weights in the file: the embedding counts to the first layer, the head to the last."""
    return [views_nbytes(network.weights(range(i, i + 1))) for i in range(network.n_layer)]


def split_into(network: Network, sizes: Sequence[int], rooms: Sequence[float]) -> tuple[range, ...] | None:
    """One range of layers for each room, none larger than it, and the largest as small as possible; None for no way.

    Args:
        sizes: bytes of each layer.
        rooms: bytes.
    """
    cuts = _cuts(network)
    before = [sum(sizes[:cut]) for cut in cuts]
    last = len(cuts) - 1
    # For the rooms from one on, by the cut where they begin: the bytes of their largest range, and where the first ends
    best: dict[int, tuple[float, int]] = {last: (0, last)}
    ways = []
    for room in reversed(rooms):
        now: dict[int, tuple[float, int]] = {}
        for start in range(last):
            for end in range(start + 1, last + 1):
                if (size := before[end] - before[start]) > room:
                    break
                if end in best:
                    most = max(size, best[end][0])
                    if start not in now or most <= now[start][0]:
                        now[start] = (most, end)
        best = now
        ways.append(best)
    if 0 not in best:
        return None
    start, found = 0, []
    for way in reversed(ways):
        end = way[start][1]
        found.append(range(cuts[start], cuts[end]))
        start = end
    return tuple(found)


def _cuts(network: Network) -> list[int]:
    """Where ranges may begin and end: layers that read an earlier one's state stay with it."""
    readers = [(block.reads_state_of, i) for i, block in enumerate(network.blocks) if block.reads_state_of is not None]
    inner = [i for i in range(1, network.n_layer) if not any(source < i <= reader for source, reader in readers)]
    return [0, *inner, network.n_layer]
