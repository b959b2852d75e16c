"""Side tensors that a format makes as it encodes: what the values of a weight are divided by before."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from attrs import evolve

from sis_core.arrays import F32
from sis_core.errors import FormatError, blaming
from sis_core.gguf_file import TensorInfo
from sis_core.quant import F32Format, QuantFormat, Weight
from sis_core.sides import Side
from sis_core.workbench.quantizer.importance import Importance
from sis_core.workbench.quantizer.plan import Plan, TensorPlan


def with_sides(plan: Plan, importance: Importance | None) -> Plan:
    """The plan with the sides that formats make: each behind its tensor, whose values are divided by it.

    Raises:
        FormatError: a format failed, or gave something else than the numbers of its `QuantFormat.side_names`.
    """
    if not any(tensor.format and tensor.format.makes_sides for tensor in plan.tensors):
        return plan
    taken = {tensor.name for tensor in plan.tensors}
    tensors: list[TensorPlan] = []
    for tensor in plan.tensors:
        divided, sides = _divided(tensor, importance)
        tensors += [divided, *(_tensor(side) for side in sides)]
        if twice := [side.tensor for side in sides if side.tensor in taken]:
            raise FormatError(
                f"its format {tensor.type_name} writes {twice[0]} beside it, which the file has already",
                where=f"tensor {tensor.name}",
                fix=f"--tensor '{tensor.name}=keep' leaves it as it is",
            )
        taken |= {side.tensor for side in sides}
    return Plan(plan.label, tensors)


def _divided(tensor: TensorPlan, importance: Importance | None) -> tuple[TensorPlan, list[Side]]:
    """A tensor with its values divided by its sides, and these."""
    weight, format = tensor.weight, tensor.format
    if weight is None or format is None or not format.makes_sides:
        return tensor, []
    means = importance.mean(tensor.name, tensor.info.shape) if importance else None
    with blaming(FormatError, f"make_sides of the format {format.name}", f"tensor {tensor.name}"):
        made = dict(format.make_sides(weight, means))
    sides = _checked(made, format, weight)
    inverse = {f"1/{side.tensor}": evolve(side, values=np.reciprocal(side.values)) for side in sides}
    squares = np.ones(weight.n_cols, np.float32)
    for side in sides:
        if side.axis == "column":
            squares *= side.values**2
    divided = evolve(weight, side={**weight.side, **inverse})
    return evolve(tensor, weight=divided, column_weights=squares), sides


def _checked(made: Mapping[str, Any], format: QuantFormat, weight: Weight) -> list[Side]:
    """What `QuantFormat.make_sides` gave, as sides; FormatError when it is not what it should be."""
    where = f"tensor {weight.name}"
    *rows, n_cols = weight.shape
    counts = {"tensor": 1, "expert": prod(rows[:-1]), "row": prod(rows), "column": n_cols}
    names, sides = format.side_names(weight.name), []
    for name, values in made.items():
        axis = names[name].axis if name in names else None
        if axis is None:
            raise FormatError(f"make_sides of {format.name} gives {name!r}, which side_names has not", where=where)
        wanted = (counts[axis],)
        if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.shape != wanted:
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise FormatError(
                f"make_sides of {format.name} gives {name!r} as {found}, not float32 {wanted}", where=where
            )
        with np.errstate(divide="ignore"):
            usable = np.isfinite(values).all() and np.isfinite(1 / values).all()
        if not usable:
            raise FormatError(
                f"make_sides of {format.name} gives {name!r} with numbers that nothing can be divided by", where=where
            )
        sides.append(Side(values.copy(), axis, names[name].tensor))
    return sides


def _tensor(side: Side) -> TensorPlan:
    """A side as a tensor of the file, in F32."""
    values: F32 = side.values
    info = TensorInfo(side.tensor, values.shape, 0, "F32", 0, values.nbytes)
    return TensorPlan(info, Weight.from_array(side.tensor, values), F32Format())
