"""How well a format keeps values, and what its encoder does wrong where it does not: part of `check_quant_format`."""

from __future__ import annotations

from functools import partial

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.guarded import unpacked
from sis_core.quant import usual_error
from sis_core.testing.boundaries import moved_level
from sis_core.testing.cut_codes import cut_codes
from sis_core.testing.encoder_mistakes import (
    exchanged_codes,
    mistake_of,
    off_scale,
    order_or_sign,
    size_of,
    unused_codes,
)
from sis_core.testing.format_probe import FormatProbe
from sis_core.testing.misplaced_codes import misread, not_nearest
from sis_core.testing.reading import OFF
from sis_core.testing.refitted_scales import FEWEST, scales_of_others


def check_faithfulness(probe: FormatProbe, max_error: float | None) -> None:
    """How near decoded values are to the encoded ones; ``max_error`` as in `check_quant_format`."""
    bound = max_error if max_error is not None else _default_bound(probe)
    n_cols = probe.widths[-1]
    for case, values in (
        ("normal values", probe.normal(64, n_cols)),
        ("normal values times 0.001", probe.normal(64, n_cols) * np.float32(1e-3)),
        ("normal values times 1000", probe.normal(64, n_cols) * np.float32(1e3)),
        ("blocks of different scales", probe.normal(64, n_cols) * probe.scales(64, n_cols)),
    ):
        rows = probe.encode(values, case)
        decoded = probe.decode(rows, n_cols, case)
        error = _relative(decoded - values, values)
        _check_positions(probe, values, decoded, case)
        if fault := cut_codes(probe.format, rows, values) or moved_level(probe.format, rows, values):
            probe.fail(fault, case)
        if not error <= bound:
            _diagnose(probe, rows, values, decoded, bound, case)
            probe.remain_finite(rows, decoded, case)
            probe.fail(_too_coarse(probe, rows, values, error, max_error), case)
        for fault in (
            unused_codes(probe.format, rows, n_cols),
            off_scale(values, decoded),
            exchanged_codes(probe.format, rows, values),
        ):
            if fault:
                _check_groups_apart(probe)  # which shows why
                probe.fail(fault, case)
        again = probe.decode(probe.encode(decoded, "decoded values"), n_cols, "decoded values")
        if _relative(again - decoded, decoded) > max(error, 1e-6):
            probe.fail(
                "a second round trip moves the values further than the first one did: what it decodes must be "
                "among the values that it can encode",
                case,
            )

    _check_one_sided(probe)
    _check_groups_apart(probe)


def _check_groups_apart(probe: FormatProbe) -> None:
    """Groups of very different sizes in one block: scales that are off by one, or another group's, show in them."""
    layout, n_cols = probe.format.layout, probe.widths[-1]
    if layout is None or n_cols % layout.group:
        return
    sizes = np.float32(2) ** -probe.random.integers(0, 6, (64, n_cols // layout.group))
    values = probe.normal(64, n_cols) * np.repeat(sizes, layout.group, axis=1).astype(np.float32)
    case = "groups of different sizes"
    if fault := misread(probe.format, probe.encode(values, case), values):
        probe.fail(fault, case)


def _too_coarse(probe: FormatProbe, rows: U8, values: F32, error: float, max_error: float | None) -> str:
    """What to say of an error that is too large, for which no mistake is known."""
    if max_error is not None:
        found = f"has an error of {error:.3g}; max_error allows {max_error:.3g}{probe.unsorted()}"
    else:
        bits = f"{probe.format.bits_per_weight:g} bits should give {_default_bound(probe):.3g}"
        found = f"has an error of {error:.3g}; {bits}{probe.unsorted()}"
    if suspect := not_nearest(probe.format, rows, values):
        return f"{found}, and {suspect}"
    if max_error is not None:
        return found
    return (
        f"{found}. A format that is coarse on purpose says so: check_quant_format(format, max_error=…), or "
        "max_error = … in its QuantFormatSuite"
    )


def _check_one_sided(probe: FormatProbe) -> None:
    """Blocks whose values have one sign, or are all the same, which normal values never show."""
    normal = np.abs(probe.normal(16, probe.widths[-1])) + np.float32(0.1)
    for case, values in (
        ("only positive values", normal),
        ("only negative values", -normal),
        ("equal values", np.full_like(normal, 0.37)),
        ("equal negative values", np.full_like(normal, -2.5)),
    ):
        decoded = probe.decode(probe.encode(values, case), values.shape[1], case)
        kept = (decoded * values).sum(axis=1) / (values * values).sum(axis=1)
        if kept.min() < -0.05:
            probe.fail("values lose their sign", case)
        if kept.min() < 0.05:
            probe.fail("values come back as nothing", case)


def _check_positions(probe: FormatProbe, values: F32, decoded: F32, case: str) -> None:
    """No place in a block may be much worse than the others."""
    size = probe.format.block_size
    squares = ((decoded - values) / np.abs(values).max()).reshape(-1, size) ** 2
    errors = squares.mean(axis=0)
    worst, usual = int(errors.argmax()), float(np.median(errors))
    if size > 1 and errors[worst] > 12 * usual and errors[worst] > 1e-4 * (values / np.abs(values).max()).var():
        probe.fail(
            f"value {worst} of each block comes back wrong: {errors[worst] / usual:.0f} times the error of others",
            case,
        )


def _default_bound(probe: FormatProbe) -> float:
    return min(0.95, usual_error(probe.format.bits_per_weight))


def name_mistake(probe: FormatProbe, rows: U8, values: F32, case: str, bound: float | None = None) -> None:
    """Fail with what the encoder did wrong by the layout, where that is a usual mistake.

    Args:
        rows: what it wrote of ``values``, ``(n_rows, row_bytes)`` of ``(n_rows, n_cols)``.
        bound: the error that the format may have, by default what its bits should give.
    """
    wanted = _explained(bound if bound is not None else _default_bound(probe))
    if fault := mistake_of(probe.format, rows, values, wanted):
        probe.fail(fault, case)


def _explained(bound: float) -> float:
    """The error at which a mistake explains what comes back: numbers that are not of the values have 1 or more."""
    return float(np.clip(2 * bound, 0.3, 0.7))


def _diagnose(probe: FormatProbe, rows: U8, values: F32, decoded: F32, bound: float, case: str) -> None:
    """Look for the usual mistakes behind an error that is too large."""
    format, size, wanted = probe.format, probe.format.block_size, _explained(bound)
    if fault := order_or_sign(format, rows, values, decoded, wanted):
        probe.fail(fault, case)
    fault = mistake_of(format, rows, values, wanted)
    if OFF in fault:  # which may be said more precisely
        name_scales(probe)
    if fault := fault or unused_codes(format, rows, values.shape[1]):
        probe.fail(fault, case)
    if np.isfinite(decoded).all():
        _check_groups_apart(probe)
        name_scales(probe)
    suspect = format.layout is None or format.layout.transform or not_nearest(format, rows, values)
    if suspect and (fault := size_of(values, decoded, size, wanted, _rows_share(probe, rows, values.shape[1]))):
        probe.fail(fault, case)


def _rows_share(probe: FormatProbe, rows: U8, n_cols: int) -> bool:
    """Whether there is one scale for each row, and several blocks."""
    if probe.format.layout is None or n_cols == probe.format.block_size:
        return False
    return bool(unpacked(probe.format, rows, n_cols).combined_scales().shape[1] == 1)


def name_scales(probe: FormatProbe) -> None:
    """Fail with how many values share a scale of the encoder, or what these are, where its codes alone are right."""
    n_cols = probe.widths[-1]
    if n_cols % FEWEST:
        return
    sizes = np.float32(2) ** -probe.random.integers(0, 6, (64, n_cols // FEWEST))
    values = probe.normal(64, n_cols) * np.repeat(sizes, FEWEST, axis=1).astype(np.float32) * probe.scales(64, n_cols)
    case = f"every {FEWEST} values of another size"
    if fault := scales_of_others(probe.format, probe.encode(values, case), values):
        probe.fail(fault, case)


def check_importance(probe: FormatProbe) -> None:
    """Columns that matter more are kept better, where the format can weigh them."""
    n_cols = probe.widths[-1]
    values = probe.normal(16, n_cols)
    importance = np.where(np.arange(n_cols) % 3 == 0, np.float32(20), np.float32(1))
    for case, weights in (("uneven importance", importance), ("no importance", np.zeros(n_cols, np.float32))):
        rows = probe.encode(values, case, weights)
        probe.independent("quantize_weighted", partial(probe.encode, case=case, importance=weights), values)
        decoded = probe.decode(rows, n_cols, case)
        probe.remain_finite(rows, decoded, case)
    plain = probe.decode(probe.encode(values, "normal values"), n_cols, "normal values").copy()
    weighted = probe.decode(probe.encode(values, "uneven importance", importance), n_cols, "uneven importance")
    errors = [float((importance * (found - values) ** 2).sum()) for found in (plain, weighted)]
    if errors[1] > 1.02 * errors[0]:
        probe.fail("importance makes the weighted error larger", f"{errors[1] / errors[0]:.3g} times")


def _relative(error: F32, values: F32) -> float:
    """Root mean square of the error over that of the values, each row counted alike."""
    squares = (error.astype(np.float64) ** 2).sum(axis=1) / (values.astype(np.float64) ** 2).sum(axis=1)
    return float(np.sqrt(squares.mean()))
