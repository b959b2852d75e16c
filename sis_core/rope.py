"""Rotary positions as a file describes them: base, rotated values, and how the context was stretched."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, F64
from sis_core.block import Rope
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.tensors import Tensors

Scaling = Literal["none", "linear", "yarn", "longrope"]
LONG, SHORT, FACTORS = "rope_factors_long.weight", "rope_factors_short.weight", "rope_freqs.weight"


@frozen
class RopeConfig:
    """What the ``rope.*`` keys say.

    Attributes:
        n_rot: rotated values of each head, from its start.
        theta: the base of the frequencies.
        scaling: ``linear`` divides all frequencies by ``factor``, ``yarn`` the low ones, ``longrope`` each by a factor
            of its own that the file holds in two tensors, for short and for long contexts.
        n_ctx_original: tokens of context before stretching.
        magnitude: factor on cosine and sine that comes with the scaling.
        beta_fast, beta_slow: YaRN's borders, in turns within ``n_ctx_original``.
        rounded: whether these are whole dimensions.
    """

    n_rot: int
    theta: float = 10000.0
    scaling: Scaling = "none"
    factor: float = 1.0
    n_ctx_original: int = 0
    magnitude: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    rounded: bool = True

    @classmethod
    def read(cls, metadata: Metadata, head_dim: int, n_ctx_train: int) -> Self:
        """From the file's keys; ModelError for values that no rotation can have."""
        scaling = _scaling(metadata, n_ctx_train)
        factor = metadata.maybe_number("rope.scaling.factor") or 1.0
        n_ctx_original = metadata.maybe_integer("rope.scaling.original_context_length") or n_ctx_train
        n_rot = _rotated(metadata, head_dim)
        return cls(
            n_rot=n_rot,
            theta=metadata.number("rope.freq_base", 10000.0, above=1.0),
            scaling=scaling,
            factor=1.0 if scaling == "none" else factor,
            n_ctx_original=n_ctx_original,
            magnitude=_magnitude(metadata, scaling, factor, n_ctx_train / n_ctx_original, n_ctx_original),
            beta_fast=metadata.maybe_number("rope.scaling.yarn_beta_fast") or 32.0,
            beta_slow=metadata.maybe_number("rope.scaling.yarn_beta_slow") or 1.0,
        )

    def n_ctx_default(self, n_ctx_train: int) -> int:
        """Tokens of context where nobody asks for a number: with LongRoPE those for which its short factors are."""
        return min(n_ctx_train, self.n_ctx_original) if self.scaling == "longrope" else n_ctx_train

    def rope(self, tensors: Tensors, style: Literal["norm", "neox"], n_ctx: int) -> Rope:
        """The rotation of one layer. ``n_ctx`` chooses between LongRoPE's two sets of factors.

        That is the context that was asked for, never what memory allows: a text must not depend on what else runs.
        """
        if self.scaling == "yarn":
            frequencies = yarn_frequencies(
                self.n_rot,
                self.theta,
                factor=self.factor,
                n_ctx_original=self.n_ctx_original,
                beta_fast=self.beta_fast,
                beta_slow=self.beta_slow,
                rounded=self.rounded,
            )
            return Rope(frequencies, style, self.magnitude)
        factors = None
        if self.scaling == "longrope":
            long, short = (_factors(tensors, name, self.n_rot) for name in (LONG, SHORT))
            factors = long if n_ctx > self.n_ctx_original else short
        elif FACTORS in tensors:  # Llama 3: its scaling rule is spelt out by the converter
            factors = _factors(tensors, FACTORS, self.n_rot)
        return Rope(
            rope_frequencies(self.n_rot, self.theta, scale=1 / self.factor, factors=factors), style, self.magnitude
        )


def _factors(tensors: Tensors, name: str, n_rot: int) -> F32:
    """What divides each frequency, float32 ``(n_rot // 2,)``; ModelError for one that is not above 0."""
    values = tensors.vector(name, n_rot // 2).dequantize().reshape(-1)
    if not (values > 0).all():
        raise ModelError(
            f"tensor {name} must hold numbers above 0",
            where=tensors.where,
            fix="convert the model again from its original",
        )
    return values


def _rotated(metadata: Metadata, head_dim: int) -> int:
    """``rope.dimension_count``, or GPT-NeoX's fraction of the head: even, at most the head, by default all of it."""
    fraction = metadata.maybe_number("rope.dimension_fraction")
    n_rot = metadata.integer("rope.dimension_count", head_dim if fraction is None else int(fraction * head_dim))
    if n_rot % 2 or n_rot > head_dim:
        raise ModelError(
            f"the key {metadata.architecture}.rope.dimension_count is {n_rot}, but must be even and at most the head "
            f"size {head_dim}",
            where=metadata.where,
            fix="convert the model again from its original",
        )
    return n_rot


def _scaling(metadata: Metadata, n_ctx_train: int) -> Scaling:
    """The kind of scaling. Old files have only a factor (linear), Phi-3's only the context before it (LongRoPE)."""
    if "rope.scaling.type" in metadata:
        name = metadata.text("rope.scaling.type")
        if name not in ("none", "linear", "yarn", "longrope"):
            raise ModelError(
                f"the key {metadata.architecture}.rope.scaling.type is {name!r}, which is not implemented",
                where=metadata.where,
                fix="install a plugin for this kind of model, or a newer version of the one you have",
            )
        return name  # type: ignore[return-value]
    if metadata.maybe_number("rope.scaling.factor") is not None:
        return "linear"
    original = metadata.maybe_integer("rope.scaling.original_context_length")
    return "longrope" if original is not None and original < n_ctx_train else "none"


def _magnitude(metadata: Metadata, scaling: Scaling, factor: float, stretch: float, n_ctx_original: int) -> float:
    """Factor on cosine and sine.

    YaRN's is ``1 + 0.1 ln(factor)`` (Peng et al. 2023, section 3.4) unless the file has Hugging Face's
    ``attention_factor``; DeepSeek's log multiplier divides it. LongRoPE's is ``sqrt(1 + ln(stretch) / ln(original))``
    (Ding et al. 2024), which converters compute and store.
    """
    magnitude = metadata.maybe_number("rope.scaling.attn_factor")
    if scaling == "yarn":
        own = metadata.maybe_number("rope.scaling.yarn_attn_factor")
        ratio = metadata.maybe_number("rope.scaling.yarn_log_multiplier")
        scaled = _mscale(factor, 1.0) / (_mscale(factor, ratio) if ratio is not None else 1.0)
        if metadata.maybe_number("rope.scaling.yarn_ext_factor") not in (None, 1.0):
            raise ModelError(
                f"the key {metadata.architecture}.rope.scaling.yarn_ext_factor is not 1, which is not implemented",
                where=metadata.where,
                fix="install a plugin for this kind of model, or a newer version of the one you have",
            )
        return (own or scaled) * (magnitude or 1.0)
    if scaling == "longrope" and magnitude is None:
        stretched = stretch > 1 and n_ctx_original > 1
        computed = math.sqrt(1 + math.log(stretch) / math.log(n_ctx_original)) if stretched else 1.0
        return metadata.number("rope.scaling.attn_factor", computed)
    return magnitude or 1.0


def _mscale(factor: float, multiplier: float) -> float:
    return 1 + 0.1 * multiplier * math.log(factor) if factor > 1 else 1.0


def rope_frequencies(
    n_rot: int,
    base: float,
    *,
    scale: float = 1.0,
    factors: F32 | None = None,
) -> F64:
    """Angular frequencies ``base ** (-2i / n_rot) * scale / factors[i]``, float64 ``(n_rot // 2,)``.

    ``scale`` is 1 / factor of linear scaling; ``factors`` ``(n_rot // 2,)`` are those of Llama 3 and LongRoPE files.
    Source: Su et al. 2021, "RoFormer"; factors as stored in the tensor ``rope_freqs.weight``.
    """
    frequencies = base ** (-np.arange(0, n_rot, 2, dtype=np.float64) / n_rot) * scale
    return frequencies if factors is None else frequencies / factors.astype(np.float64)


def yarn_frequencies(
    n_rot: int,
    base: float,
    *,
    factor: float,
    n_ctx_original: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    rounded: bool = True,
) -> F64:
    """Frequencies of YaRN, float64 ``(n_rot // 2,)`` (Peng et al. 2023, section 3.2).

    Dimensions that turn more than ``beta_fast`` times within ``n_ctx_original`` keep their frequency, those that turn
    less than ``beta_slow`` times are divided by ``factor``, with a linear ramp between; ``rounded``: between whole
    dimensions.
    """
    plain = rope_frequencies(n_rot, base)

    def dimension(turns: float) -> float:
        return n_rot * float(np.log(n_ctx_original / (turns * 2 * np.pi))) / (2 * float(np.log(base)))

    first, last = dimension(beta_fast), dimension(beta_slow)
    low = max(np.floor(first) if rounded else first, 0)
    high = min(np.ceil(last) if rounded else last, n_rot - 1)
    ramp = np.clip((np.arange(n_rot // 2) - low) / max(high - low, 1e-3), 0, 1)
    frequencies: F64 = plain * (1 - ramp) + plain / factor * ramp
    return frequencies
