"""Where the attention of a step goes, as native code leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backends.native.library import address
from sis_core.step import Plan


@frozen(eq=False)
class Watched:
    """What a step fills in for each attention over the whole text; see `sis_step.watch`.

    Attributes:
        shape: rows and pages of the step's one group.
        found: float32: the highest of a row's scores in a page, and the sum of 2^(score - that).
    """

    n_head: Sequence[int]
    shape: tuple[int, int]
    found: F32
    plan: Plan

    @classmethod
    def of(cls, n_head: Sequence[int], plans: Sequence[Plan]) -> Self | None:
        """Room for attentions of so many query heads; None where nobody asks."""
        plan = next((plan for plan in plans if plan.watch is not None), None)
        if plan is None or not n_head:
            return None
        group = plan.groups[0]
        shape = group.n, -(-group.length // plan.page_size)
        found = np.zeros((sum(n_head) * shape[0] * shape[1], 2), np.float32)
        found[:, 0] = -np.inf
        return cls(n_head, shape, found, plan)

    @property
    def address(self) -> int:
        return address(self.found)

    def tell(self) -> None:
        """Leave the shares where the plan wants them."""
        assert self.plan.watch is not None
        self.plan.watch.extend(self._shares())

    def _shares(self) -> Iterator[F32]:
        n, n_pages = self.shape
        at = 0
        for heads in self.n_head:
            found = self.found[at : at + heads * n * n_pages].reshape(n, heads, n_pages, 2)
            at += heads * n * n_pages
            most, sums = found[..., 0], found[..., 1]
            shares: F32 = sums * np.exp2(most - most.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            yield np.ascontiguousarray(shares.swapaxes(0, 1))
