"""Look at every value of a model for NaN and infinity: a damaged block scale spoils all that is computed after it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sis_core.errors import ModelError
from sis_core.loading.model import Model
from sis_core.loading.weights import file_weights
from sis_core.quant import Weight

SHOWN = 3  # tensors named in the message


def check_tensors(model: Model) -> None:
    """Decode every tensor of the model's file, panel by panel; ModelError naming those with a NaN or an infinity."""
    check_weights(file_weights(model.file, model.registry).values(), str(model.path))


def check_weights(weights: Iterable[Weight], where: str = "") -> None:
    """The same for any weights. Each is decoded once and never held whole; its pages are given back after it."""
    damaged = []
    for weight in weights:
        if found := _first_damage(weight):
            damaged.append(f"{weight.name} ({weight.format.name}, {found})")
        weight.release()
    if damaged:
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise ModelError(
            f"values that are NaN or infinite in tensor {', '.join(damaged[:SHOWN])}{more}",
            where=where,
            fix="the file is damaged or was badly converted: download or convert it again",
        )


def _first_damage(weight: Weight) -> str | None:
    with np.errstate(all="ignore"):  # decoding a damaged scale may multiply infinity by zero
        for start, panel in weight.panels():
            bad = ~np.isfinite(panel)
            if bad.any():
                row, column = (int(index) for index in np.argwhere(bad)[0])
                return f"row {start + row}, column {column}"
    return None
