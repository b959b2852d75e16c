"""Encode blocks as ``x = d * scale * q - dmin * min``: the search behind Q2_K, Q4_K and Q5_K.

Each sub-block gets the scale and min with the least weighted squared error among candidates (after ggml's
``make_qkx3_quants``), then alternates between rounding and least squares. Then the scales and mins of a super-block are
made small integers; as that moves them, their neighbours are tried with the values rounded anew, and the two factors
are solved for by least squares once more.

Arrays are ``(size, n)``: a column a sub-block. So each numpy loop is long, and what becomes of a column does not depend
on how many there are.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from sis_core.arrays import F32, U8
from sis_kquants.columns import binary16, integers, safe_inverse, to_columns, to_rows, units

STRETCHES = np.linspace(-0.9, 0.9, 19, dtype=np.float32)
ROUNDS = 2


@frozen(eq=False)
class Affine:
    """What a block stores: binary16 factors ``(n,)``, scales and mins ``(n, n_sub)``, quants ``(n, 256)``."""

    d: NDArray[np.float16]
    dmin: NDArray[np.float16]
    scales: U8
    mins: U8
    quants: U8


def fit(blocks: F32, weights: F32 | None, n_sub: int, q_max: int, s_max: int) -> Affine:
    """Find scales up to ``s_max`` and quants up to ``q_max`` for ``blocks`` ``(n, 256)`` of ``n_sub`` sub-blocks."""
    unit = units(blocks)  # (n,)
    x = to_columns(blocks / unit[:, None], n_sub)  # (size, n * n_sub), all in -1 ... 1
    w = None if weights is None else to_columns(weights, n_sub)
    scale, low = _sub_blocks(x, w, q_max)
    scale, low = scale.reshape(-1, n_sub), -low.reshape(-1, n_sub)
    d, dmin = binary16(scale.max(axis=1) / s_max, unit), binary16(low.max(axis=1) / s_max, unit)
    scales = np.clip(np.rint(scale * safe_inverse(d)[:, None]), 0, s_max)
    mins = np.clip(np.rint(low * safe_inverse(dmin)[:, None]), 0, s_max)
    state = _State(x, w, q_max, d, dmin, scales, mins)
    for _ in range(ROUNDS):
        state = state.with_better_integers(s_max)
        state = state.with_better_factors(unit)
    quants = to_rows(integers(state.quants), n_sub).astype(np.uint8)
    stored = [(factor * unit).astype("<f2") for factor in (state.d, state.dmin)]
    scales, mins = (integers(kept).astype(np.uint8) for kept in (state.scales, state.mins))
    return Affine(stored[0], stored[1], scales, mins, quants)


def _sub_blocks(x: F32, w: F32 | None, q_max: int) -> tuple[F32, F32]:
    """The best ``x = scale * q + low`` of each column, with ``low <= 0``: two ``(n,)``."""
    low = np.minimum(x.min(axis=0), 0)
    span = x.max(axis=0) - low
    unit = np.where(span > 0, span / q_max, np.float32(1))
    u = (x - low) / unit  # 0 ... q_max
    sums = _Sums(u, w, -low / unit)
    scale, offset, error = np.ones_like(unit), np.zeros_like(unit), np.full_like(unit, np.inf)
    for stretch in STRETCHES:
        _keep_better((scale, offset, error), sums.solve(np.minimum(np.rint(u * (1 + stretch / q_max)), q_max)))
    for _ in range(ROUNDS):
        quants = np.clip(np.rint((u - offset) * safe_inverse(scale)), 0, q_max)
        _keep_better((scale, offset, error), sums.solve(quants))
    scale[span == 0] = 0  # a constant is all min; a scale here would make those of the other sub-blocks coarser
    return scale * unit, low + offset * unit


def _keep_better(best: tuple[F32, F32, F32], found: tuple[F32, F32, F32]) -> None:
    better = found[2] < best[2]
    for kept, new in zip(best, found, strict=True):
        np.copyto(kept, new, where=better)


class _Sums:
    """Least squares of ``u = scale * q + offset`` for each column, with ``offset <= top``."""

    def __init__(self, u: F32, w: F32 | None, top: F32) -> None:
        self.u, self.w, self.top = u, w, top
        weighted = u if w is None else w * u
        self.n = np.full_like(top, len(u)) if w is None else w.sum(axis=0)
        self.s_u, self.s_uu = weighted.sum(axis=0), (weighted * u).sum(axis=0)

    def solve(self, q: F32) -> tuple[F32, F32, F32]:
        """The scale, the offset and the squared error of each column, three ``(n,)``; NaN where ``q`` is constant."""
        weighted = q if self.w is None else self.w * q
        s_q, s_qq, s_qu = weighted.sum(axis=0), (weighted * q).sum(axis=0), (weighted * self.u).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            determinant = self.n * s_qq - s_q * s_q
            scale = (self.n * s_qu - s_q * self.s_u) / determinant
            offset = (s_qq * self.s_u - s_q * s_qu) / determinant
            above = offset > self.top
            offset = np.where(above, self.top, offset)
            scale = np.where(above, (s_qu - self.top * s_q) / s_qq, scale)
            error = self.s_uu - 2 * (scale * s_qu + offset * self.s_u)
            error += scale * scale * s_qq + 2 * scale * offset * s_q + offset * offset * self.n
        return scale, offset, error


class _State:
    """A choice of factors ``(n,)`` and integers ``(n, n_sub)``, with the quants and errors that follow from it."""

    def __init__(self, x: F32, w: F32 | None, q_max: int, d: F32, dmin: F32, scales: F32, mins: F32) -> None:
        self.x, self.w, self.q_max = x, w, q_max
        self.d, self.dmin, self.scales, self.mins = d, dmin, scales, mins
        self.quants, self.errors = self.rounded(scales, mins)  # (size, n * n_sub), (n, n_sub)

    def rounded(self, scales: F32, mins: F32) -> tuple[F32, F32]:
        scale, low = (self.d[:, None] * scales).reshape(-1), (self.dmin[:, None] * mins).reshape(-1)
        shifted = self.x + low
        quants = shifted * safe_inverse(scale)
        np.rint(quants, out=quants)
        np.clip(quants, 0, self.q_max, out=quants)
        shifted -= quants * scale
        shifted *= shifted
        if self.w is not None:
            shifted *= self.w
        return quants, shifted.sum(axis=0).reshape(scales.shape)

    def with_better_integers(self, s_max: int) -> _State:
        """Each sub-block takes the best of its own and the eight neighbouring pairs of scale and min."""
        scales, mins, errors = self.scales.copy(), self.mins.copy(), self.errors.copy()
        for i, j in product((-1, 0, 1), repeat=2):
            if i or j:
                tried = np.clip(self.scales + i, 0, s_max), np.clip(self.mins + j, 0, s_max)
                _keep_better((scales, mins, errors), (*tried, self.rounded(*tried)[1]))
        return _State(self.x, self.w, self.q_max, self.d, self.dmin, scales, mins)

    def with_better_factors(self, unit: F32) -> _State:
        """Each block takes the least-squares ``d`` and ``dmin`` for its integers if, rounded, they are better."""
        shape = self.scales.shape
        weighted = self.quants if self.w is None else self.w * self.quants
        q = weighted.sum(axis=0).reshape(shape)
        qq = (weighted * self.quants).sum(axis=0).reshape(shape)
        qx = (weighted * self.x).sum(axis=0).reshape(shape)
        n = (np.full(shape, len(self.x)) if self.w is None else self.w.sum(axis=0).reshape(shape)).astype(np.float64)
        x = (self.x if self.w is None else self.w * self.x).sum(axis=0).reshape(shape)
        s, m = self.scales.astype(np.float64), self.mins.astype(np.float64)
        ss, sm, mm = (s * s * qq).sum(axis=1), (s * m * q).sum(axis=1), (m * m * n).sum(axis=1)
        sx, mx = (s * qx).sum(axis=1), (m * x).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            determinant = ss * mm - sm * sm
            d = np.where(determinant > 0, (sx * mm - sm * mx) / determinant, sx / ss)
            dmin = np.where(determinant > 0, (sm * sx - ss * mx) / determinant, self.dmin)
        usable = np.isfinite(d) & np.isfinite(dmin) & (d >= 0) & (dmin >= 0)
        new = [binary16(np.where(usable, a, b), unit) for a, b in ((d, self.d), (dmin, self.dmin))]
        found = _State(self.x, self.w, self.q_max, new[0], new[1], self.scales, self.mins)
        worse = ~(found.errors.sum(axis=1) < self.errors.sum(axis=1))
        new[0][worse], new[1][worse] = self.d[worse], self.dmin[worse]
        return _State(self.x, self.w, self.q_max, new[0], new[1], self.scales, self.mins)
