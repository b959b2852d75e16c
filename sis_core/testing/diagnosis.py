"""From wrong numbers to the likely fault: which linear, which small network, and whose numbers they are instead."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions
from sis_core.backends.bind import bind
from sis_core.block import Network
from sis_core.quant import QuantFormat, Weight
from sis_core.testing.faults import faults
from sis_core.testing.networks import N_EMBD, N_FF, SMALL, random_network, with_format
from sis_core.testing.ways import LOGITS, Way


def error(found: F32, wanted: F32) -> F32:
    """The largest error of each row, as a part of the largest value."""
    return np.asarray(np.abs(found - wanted).max(-1) / np.abs(wanted).max(), np.float32)


def near(found: F32, wanted: F32, tolerance: float) -> bool:
    """Whether two results are the same within the tolerance."""
    if found.dtype != np.float32 or found.shape != wanted.shape or not np.isfinite(found).all():
        return False
    return bool(error(found, wanted).max() <= tolerance)


def diagnose(
    backend: Backend, options: BackendOptions, format: QuantFormat, way: Way, ids: list[int], tolerance: float
) -> str:
    """What is likely wrong with a backend that gave wrong numbers, in a clause; empty when nothing smaller shows it."""
    if linear := _wrong_linear(backend, options, format, tolerance):
        return linear
    for variant in SMALL:
        network = random_network(with_format(variant, format))
        wanted = way.run(bind(network, [], options), options.kv_type, ids)
        shown = f"the smallest network that shows it has {variant.name}"
        if variant is not SMALL[0]:
            shown = f"the smallest network that shows it is plain with {variant.name}"
        try:
            found = way.run(bind(network, [backend], options), options.kv_type, ids)
        except Exception as raised:
            return f"{shown}, and raises {type(raised).__name__}: {raised}"
        if not near(found, wanted, tolerance):
            return f"{shown}: {explain(network, options, way, ids, found, wanted, tolerance)}"
    return ""


def explain(
    network: Network, options: BackendOptions, way: Way, ids: list[int], found: F32, wanted: F32, tolerance: float
) -> str:
    """Whose numbers these are instead."""
    for words, spoilt in faults(network, way is LOGITS[0]):
        with np.errstate(all="ignore"):
            theirs = way.run(bind(spoilt, [], options), options.kv_type, ids)
        # A fault that hardly changes the numbers would explain any.
        if near(found, theirs, tolerance) and not near(wanted, theirs, tolerance):
            return f"these are the numbers of a backend that {words}"
    return "; ".join(_shapes_of_error(found, wanted, tolerance)) or "no usual fault gives these numbers"


def _shapes_of_error(found: F32, wanted: F32, tolerance: float) -> Iterator[str]:
    """What can be seen in the numbers alone."""
    if found.dtype != np.float32:
        yield f"values are {found.dtype}, not float32"
        return
    if found.shape != wanted.shape:
        yield f"the shape is {found.shape}, not {wanted.shape}"
        return
    if not np.isfinite(found).all():
        yield "not finite"
        return
    factor = float((found * wanted).sum() / (wanted * wanted).sum())
    if near(found, wanted * np.float32(factor), tolerance):
        yield f"all values are {factor:.4g} times what they should be: a scale is wrong"
        return
    if near(found[:, ::-1], wanted, tolerance):
        yield "the outputs are in reverse order"
        return
    nearest = [int(np.abs(wanted - row).max(-1).argmin()) for row in found]
    if sorted(nearest) == list(range(len(wanted))) and near(found, wanted[nearest], tolerance):
        yield f"the rows are right but in another order: {nearest}"
        return
    size = np.abs(wanted).max()
    wrong_rows = np.flatnonzero(np.abs(found - wanted).max(1) > tolerance * size)
    wrong_columns = np.flatnonzero(np.abs(found - wanted).max(0) > tolerance * size)
    if len(wrong_columns) < wanted.shape[1]:
        yield f"only outputs {_ranges(wrong_columns)} of {wanted.shape[1]} are wrong"
    if len(wrong_rows) < len(wanted):
        yield f"only rows {_ranges(wrong_rows)} of {len(wanted)} are wrong"


def _ranges(numbers: np.ndarray) -> str:
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in np.split(numbers, cuts)]
    return ", ".join(parts[:4]) + (" …" if len(parts) > 4 else "")


def _wrong_linear(backend: Backend, options: BackendOptions, format: QuantFormat, tolerance: float) -> str:
    """The fault of the linears that a backend binds alone, where it does."""
    random = np.random.default_rng(3)
    for n_out, n_in in ((N_EMBD, N_EMBD), (N_FF, N_EMBD), (N_EMBD, N_FF)):
        values = random.standard_normal((n_out, n_in)).astype(np.float32)
        weight = Weight.from_array("blk.0.any.weight", values, format)
        linear = backend.linear(weight, options)
        if linear is None:
            return ""
        x = random.standard_normal((5, n_in)).astype(np.float32)
        matrix = weight.dequantize()
        what = f"its linear of a matrix {weight.shape} in {format.name} is wrong alone: "
        given, wanted = x.copy(), x @ matrix.T
        try:
            found = linear(x)
            kept = np.array(found)
            linear(given[::-1].copy())
        except Exception as raised:
            return f"{what}it raises {type(raised).__name__}: {raised}"
        if not np.array_equal(x, given):
            return f"{what}it writes into the rows that it is given"
        if not np.array_equal(found, kept, equal_nan=True):
            return f"{what}it returns the same memory each time, so that a later call changes an earlier result"
        if near(found, wanted, tolerance):
            continue
        if n_out == n_in and near(found, x @ matrix, tolerance):
            return f"{what}it multiplies by the transposed matrix"
        for dropped in (1, 2, 4, 8, 16, 32):
            if near(found, x[:, :-dropped] @ matrix[:, :-dropped].T, tolerance):
                return f"{what}it leaves out the last {dropped} of {n_in} columns"
        return what + ("; ".join(_shapes_of_error(found, wanted, tolerance)) or "every output of every row is off")
    return ""
