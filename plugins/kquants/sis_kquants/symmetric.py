"""Encode blocks as ``x = d * scale * q`` with signed quants: the search behind Q3_K and Q6_K.

As in `sis_kquants.affine`, without the mins (after ggml's ``make_qx_quants``). Quants reach one further below zero than
above; the value of largest magnitude is given that side, so scales have a sign.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from sis_core.arrays import F32
from sis_kquants.columns import binary16, integers, safe_inverse, to_columns, to_rows, units

STRETCHES = np.linspace(-0.9, 0.9, 19, dtype=np.float32)
ROUNDS = 2


@frozen(eq=False)
class Symmetric:
    """What a block stores: ``d`` binary16 ``(n, 1)``, scales int8 ``(n, n_sub)``, quants int8 ``(n, 256)``."""

    d: NDArray[np.float16]
    scales: NDArray[np.int8]
    quants: NDArray[np.int8]


def fit(blocks: F32, weights: F32 | None, n_sub: int, q_min: int, s_min: int) -> Symmetric:
    """Find scales in ``s_min ... -s_min - 1`` and quants in ``q_min ... -q_min - 1`` for ``blocks`` ``(n, 256)``."""
    unit = units(blocks)  # (n,)
    x = to_columns(blocks / unit[:, None], n_sub)  # (size, n * n_sub), all in -1 ... 1
    w = None if weights is None else to_columns(weights, n_sub)
    scale = _sub_blocks(x, w, q_min).reshape(-1, n_sub)
    largest = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)[:, 0]
    d = binary16(largest / s_min, unit)
    scales = np.clip(np.rint(scale * safe_inverse(d)[:, None]), s_min, -s_min - 1)
    state = _State(x, w, q_min, d, scales)
    for _ in range(ROUNDS):
        state = state.with_better_integers(s_min)
        state = state.with_better_factor(unit)
    quants = to_rows(integers(state.quants), n_sub).astype(np.int8)
    stored = (state.d * unit).astype("<f2")
    return Symmetric(stored[:, None], integers(state.scales).astype(np.int8), quants)


def _sub_blocks(x: F32, w: F32 | None, q_min: int) -> F32:
    """The scale ``(n,)`` of each column for which ``scale * q`` comes closest to it."""
    peak: F32 = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    peak[peak == 0] = 1
    u = x / peak  # -1 ... 1, with 1 in it
    best, scale = np.zeros_like(peak), np.zeros_like(peak)
    for stretch in STRETCHES:
        quants = np.clip(np.rint(u * (q_min + stretch)), q_min, -q_min - 1)
        weighted = quants if w is None else w * quants
        s_qu, s_qq = (weighted * u).sum(axis=0), (weighted * quants).sum(axis=0)
        inverse = safe_inverse(s_qq)
        gain = s_qu * s_qu * inverse  # how much the squared error is less than without any quants
        better = gain > best
        np.copyto(best, gain, where=better)
        np.copyto(scale, s_qu * inverse, where=better)
    return scale * peak


class _State:
    """A choice of factors ``(n,)`` and integers ``(n, n_sub)``, with the quants and errors that follow from it."""

    def __init__(self, x: F32, w: F32 | None, q_min: int, d: F32, scales: F32) -> None:
        self.x, self.w, self.q_min, self.d, self.scales = x, w, q_min, d, scales
        self.quants, self.errors = self.rounded(scales)  # (size, n * n_sub), (n, n_sub)

    def rounded(self, scales: F32) -> tuple[F32, F32]:
        scale = (self.d[:, None] * scales).reshape(-1)
        quants = self.x * safe_inverse(scale)
        np.rint(quants, out=quants)
        np.clip(quants, self.q_min, -self.q_min - 1, out=quants)
        error = self.x - quants * scale
        error *= error
        if self.w is not None:
            error *= self.w
        return quants, error.sum(axis=0).reshape(scales.shape)

    def with_better_integers(self, s_min: int) -> _State:
        """Each sub-block takes the best of its own and the neighbouring scales."""
        scales, errors = self.scales.copy(), self.errors.copy()
        for i in (-2, -1, 1, 2):
            tried = np.clip(self.scales + np.float32(i), s_min, -s_min - 1)
            found = self.rounded(tried)[1]
            better = found < errors
            np.copyto(scales, tried, where=better)
            np.copyto(errors, found, where=better)
        return _State(self.x, self.w, self.q_min, self.d, scales)

    def with_better_factor(self, unit: F32) -> _State:
        """Each block takes the least-squares ``d`` for its integers if, rounded, it is better."""
        weighted = self.quants if self.w is None else self.w * self.quants
        qq = (weighted * self.quants).sum(axis=0).reshape(self.scales.shape)
        qx = (weighted * self.x).sum(axis=0).reshape(self.scales.shape)
        ss, sx = (self.scales * self.scales * qq).sum(axis=1), (self.scales * qx).sum(axis=1)
        d = binary16(np.where(ss > 0, sx * safe_inverse(ss), self.d), unit)
        found = _State(self.x, self.w, self.q_min, d, self.scales)
        better = found.errors.sum(axis=1) < self.errors.sum(axis=1)
        return _State(self.x, self.w, self.q_min, np.where(better, d, self.d), self.scales)
