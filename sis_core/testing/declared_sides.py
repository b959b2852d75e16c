"""What the tensors beside a weight must keep to, as a format names them: part of `check_quant_format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from sis_core.quant import QuantFormat
from sis_core.sides import SideName
from sis_core.transform import PerColumn

TENSORS = ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight", "blk.0.ffn_up.weight", "output.weight")

Fail = Callable[[str, str], NoReturn]


def check_sides(format: QuantFormat, fail: Fail) -> None:
    """Hold `QuantFormat.side_names` to its contract, and to the layout's transform.

    Args:
        fail: raises with a fault and the case in which it showed.
    """
    named = {tensor: _names(format, tensor, fail) for tensor in TENSORS}
    owners: dict[str, str] = {}
    for tensor, sides in named.items():
        for name, side in sides.items():
            if side.tensor in named:
                fail(f"side_names takes the weight {side.tensor} for its side {name!r}", tensor)
            if (owner := owners.setdefault(side.tensor, tensor)) != tensor:
                fail(f"side_names gives {side.tensor} to {owner} too: each weight has sides of its own", tensor)
    transform = format.layout.transform if format.layout else None
    if isinstance(transform, PerColumn):
        sides = named[TENSORS[0]]
        if transform.side not in sides:
            there = ", ".join(map(repr, sides)) or "none"
            fail(f"its layout multiplies columns by the side {transform.side!r}, but side_names gives {there}", "")
        side = sides[transform.side]
        if side.axis != "column":
            fail(
                f"its layout multiplies columns by the side {transform.side!r}, which has a number for each "
                f"{side.axis} by side_names",
                "",
            )


def _names(format: QuantFormat, tensor: str, fail: Fail) -> Mapping[str, SideName]:
    try:
        found: Any = format.side_names(tensor)
        again = format.side_names(tensor)
    except Exception as error:
        fail(f"side_names fails: {type(error).__name__}: {error}", tensor)
    if not isinstance(found, Mapping):
        fail(f"side_names returns {type(found).__name__}, not names with a SideName each", tensor)
    for name, side in found.items():
        if not isinstance(name, str) or not isinstance(side, SideName) or not side.tensor:
            fail(f"side_names gives {name!r}: {side!r}, not a name with a SideName", tensor)
    if dict(again) != dict(found):
        fail("side_names gives other names the second time", tensor)
    return found
