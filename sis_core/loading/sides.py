"""Side tensors of a file: claimed by the format of the weight that they lie beside, and looked at once, then."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from attrs import evolve

from sis_core.arrays import F32
from sis_core.errors import FormatError, GGUFError, blaming
from sis_core.gguf_file import Array, ModelFile, TensorInfo
from sis_core.quant import PLAIN, QuantFormat
from sis_core.sides import Side, SideName, sides_key

FIX = "convert the model again from its original"


def claim_sides(
    file: ModelFile, info: TensorInfo, format: QuantFormat, read: Callable[[TensorInfo], F32]
) -> dict[str, Side]:
    """What a tensor is multiplied by, of what lies beside it.

    Args:
        read: the values of a tensor of the file.

    Raises:
        FormatError: a side has another shape or type, or numbers that nothing can be multiplied by; or the file says
            that it has one which is not there.
    """
    where = f"{file.path}: tensor {info.name}"
    with blaming(FormatError, f"side_names of the format {format.name}", where):
        places = [(str(name), evolve(place)) for name, place in format.side_names(info.name).items()]
    *rows, n_cols = info.shape or (1,)
    counts = {"tensor": 1, "expert": prod(rows[:-1]), "row": prod(rows), "column": n_cols}
    sides = {}
    for name, place in places:
        tensor, axis = place.tensor, place.axis
        if axis is None or tensor == info.name:
            continue
        found = file.tensors.get(tensor)
        if found is None:
            if tensor in file_sides(file, format.name):
                raise FormatError(
                    f"needs its side {tensor}, a number for each {axis}, which the file says it has and has not",
                    where=where,
                    fix="a tool has left it out: take the file as it was before, or quantise the model again",
                )
            continue
        if prod(found.shape) != counts[axis] or found.type_name not in PLAIN:
            raise FormatError(
                f"{tensor}, which lies beside it, is {found.type_name} {found.shape}, not {counts[axis]} "
                f"plain numbers, one for each {axis}",
                where=where,
                fix=FIX,
            )
        values = np.array(read(found).reshape(-1))  # a copy: values may be a view into the file
        _check_values(values, place, where)
        sides[name] = Side(values, axis, tensor)
    return sides


def _check_values(values: F32, place: SideName, where: str) -> None:
    """FormatError, saying which, when a side has numbers that no weight can be multiplied by."""
    good = np.isfinite(values)
    if not place.zeros:
        good &= values != 0
    if good.all():
        return
    first = int(np.argmin(good))
    raise FormatError(
        f"its side {place.tensor} is {values[first]} at index {first}; its numbers, one for each {place.axis}, "
        f"multiply weights and must be finite{'' if place.zeros else ' and not 0'}",
        where=where,
        fix=FIX,
    )


def file_sides(file: ModelFile, format: str) -> frozenset[str]:
    """The sides that a file says its weights in a format have; none where it says nothing.

    Raises:
        FormatError: what it says is no list of tensors.
    """
    said = file.metadata.get(sides_key(format))
    if said is None:
        return frozenset()
    try:
        if isinstance(said, Array):
            return frozenset(name.decode("utf-8") for name in said.bytes_list())
    except (GGUFError, UnicodeDecodeError):
        pass
    raise FormatError(f"{sides_key(format)} is {said!r}, which is no list of tensors", where=str(file.path), fix=FIX)
