"""Sides: tensors of a file that lie beside a weight, whose numbers its values are multiplied by."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from attrs import evolve, field, frozen

from sis_core.arrays import F32
from sis_core.errors import FormatError

Axis: TypeAlias = Literal["tensor", "expert", "row", "column"]
"""What the numbers of a side are of: one for the tensor, or one for each expert, row or column."""


def _is_axis(side: SideName, _: object, axis: Any) -> None:
    if axis is not None and axis not in get_args(Axis):
        raise FormatError(f"{axis!r} is no axis; there are {', '.join(get_args(Axis))}", where=f"side {side.tensor}")


@frozen
class SideName:
    """Where in a file the numbers of a side lie.

    Attributes:
        tensor: the name of a tensor, in F32, F16 or BF16.
        axis: what its numbers are of: one for the tensor, or one for each expert, row or column. None for a tensor that
            belongs to the weight and changes nothing here.
        zeros: whether 0 is one of its numbers, as for an expert whose weights are all 0. Otherwise a file with a 0
            there is refused, as every file with NaN or infinity is.

    Raises:
        FormatError: an axis that is none.
    """

    tensor: str
    axis: Axis | None = field(validator=_is_axis)
    zeros: bool = False


@frozen(eq=False)
class Side:
    """Numbers beside a weight that its values are multiplied by.

    Attributes:
        values: float32 ``(1,)``, ``(n_expert,)``, ``(n_rows,)`` or ``(n_cols,)``.
        axis: which of these.
        tensor: its name in the file, for messages.
    """

    values: F32
    axis: Axis
    tensor: str = ""

    def rows(self, start: int, stop: int, n_rows: int) -> Side:
        """That of the rows ``start:stop`` of ``n_rows``."""
        if self.axis == "row":
            return evolve(self, values=self.values[start:stop])
        if self.axis == "expert":
            per_expert = n_rows // len(self.values)
            first, last = start // per_expert, (stop - 1) // per_expert
            if first == last:
                return Side(self.values[first : first + 1], "tensor", self.tensor)
            if start % per_expert or stop % per_expert:
                return Side(np.repeat(self.values, per_expert)[start:stop], "row", self.tensor)
            return evolve(self, values=self.values[first : last + 1])
        return self

    def of_rows(self, numbers: slice | np.ndarray, n_rows: int) -> F32:
        """What rows of these numbers, of ``n_rows``, are multiplied by: ``(k, 1)``, or one row for all of them."""
        if self.axis in ("column", "tensor"):
            return self.values[None, :]
        every = self.values if self.axis == "row" else np.repeat(self.values, n_rows // len(self.values))
        return every[numbers, None]


def sides_key(format: str) -> str:
    """The metadata key that names the sides which weights of a format have in a file, so that none is lost unseen.

    A format may do without a side, as one whose columns are folded into what comes before does, and says so by leaving
    it out. A file without the key has those that are there: it is older, or from elsewhere.
    """
    return f"sis.format.{format}.sides"
