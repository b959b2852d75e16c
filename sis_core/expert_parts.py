"""Experts of a family, from its file's keys and tensors under GGUF's names."""

from __future__ import annotations

from typing import Any, Self

from attrs import frozen

from sis_core.architecture import ModelConfig
from sis_core.block import Activation, Dense, FeedForward
from sis_core.errors import ModelError
from sis_core.experts import Experts, Gating, Stack
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward
from sis_core.tensors import Tensors

GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid", 3: "softmax_weight"}
"""GGUF's numbers, in the key ``expert_gating_func``."""
MAX_EXPERTS = 1 << 12


@frozen
class ExpertSizes:
    """What a file says of its experts, in GGUF's terms.

    Attributes:
        n_ff: values between up and down, of each expert.
        n_ff_shared: of the shared expert, where the layer has one.
        n_dense: layers at the beginning that have none,
        step: and of the others, every so many have them.
    """

    n_expert: int
    n_used: int
    n_ff: int
    n_ff_shared: int
    gating: Gating
    renormalise: bool
    scale: float
    n_group: int
    n_group_used: int
    n_dense: int
    step: int

    def in_layer(self, i: int) -> bool:
        """Whether layer ``i`` has experts."""
        return i >= self.n_dense and (i + 1) % self.step == 0

    @classmethod
    def read(cls, metadata: Metadata, *, gating: Gating = "softmax", renormalise: bool = True) -> ExpertSizes | None:
        """None for a file without experts; ``gating`` and ``renormalise`` are the family's, where a file is silent.

        Raises:
            ModelError: a key is missing, of a wrong type, out of range, or contradicts another.
        """
        n_expert = metadata.maybe_integer("expert_count", maximum=MAX_EXPERTS)
        if n_expert is None:
            return None
        shared_count = metadata.maybe_integer("expert_shared_count", maximum=MAX_EXPERTS) or 1
        n_ff = metadata.maybe_integer("expert_feed_forward_length") or metadata.integer("feed_forward_length")
        number = metadata.maybe_integer("expert_gating_func")
        if number is not None and number not in GATINGS:
            raise ModelError(
                f"the key {metadata.architecture}.expert_gating_func is {number}, which no installed family implements",
                where=metadata.where,
                fix="install a plugin for this kind of model, or a newer version of the one you have",
            )
        n_group = metadata.maybe_integer("expert_group_count", maximum=n_expert) or 1
        if n_expert % n_group:
            raise ModelError(
                f"{n_expert} experts in {n_group} groups ({metadata.architecture}.expert_group_count)",
                where=metadata.where,
                fix="convert the model again from its original",
            )
        n_group_used = metadata.maybe_integer("expert_group_used_count", maximum=n_group) or n_group
        return cls(
            n_expert=n_expert,
            n_used=metadata.integer("expert_used_count", maximum=n_expert // n_group * n_group_used),
            n_ff=n_ff,
            n_ff_shared=metadata.maybe_integer("expert_shared_feed_forward_length") or n_ff * shared_count,
            gating=gating if number is None else GATINGS[number],
            renormalise=metadata.flag("expert_weights_norm") if "expert_weights_norm" in metadata else renormalise,
            scale=metadata.maybe_number("expert_weights_scale") or 1.0,
            n_group=n_group,
            n_group_used=n_group_used,
            n_dense=metadata.maybe_integer("leading_dense_block_count") or 0,
            step=metadata.maybe_integer("interleave_moe_layer_step") or 1,
        )


@frozen
class ExpertsConfig(ModelConfig):
    """``experts``: None in a file without."""

    experts: ExpertSizes | None = None

    @classmethod
    def read(
        cls, metadata: Metadata, n_vocab: int, *, gating: Gating = "softmax", renormalise: bool = True, **rest: Any
    ) -> Self:
        """As `ModelConfig.read` and `ExpertSizes.read`."""
        experts = ExpertSizes.read(metadata, gating=gating, renormalise=renormalise)
        return super().read(metadata, n_vocab, experts=experts, **rest)


def experts_or_dense(
    config: ExpertsConfig,
    i: int,
    tensors: Tensors,
    activation: Activation,
    *,
    bias: bool = False,
    scale_input: bool = False,
) -> Experts | FeedForward:
    """The experts of layer ``i``, or its gated feed-forward where it has none.

    Whether there are a shared expert, a gate for it, and a bias for the choice is seen from the tensors; and whether
    gates and ups are two tensors or one, the gates first in each expert.

    Args:
        bias: whether the router and the experts have biases.
        scale_input: see `Experts`.
    """
    sizes, n = config.experts, config.n_embd
    if sizes is None or not sizes.in_layer(i):
        return gated_feed_forward(config, i, tensors, activation)
    gate, up = _gate_and_up(sizes, n, i, tensors, bias=bias)
    return Experts(
        router=tensors.dense(f"blk.{i}.ffn_gate_inp", sizes.n_expert, n, bias=bias),  # (n_expert, n)
        gate=gate,  # (n_expert, n_ff, n)
        up=up,  # (n_expert, n_ff, n)
        down=tensors.stack(f"blk.{i}.ffn_down_exps", sizes.n_expert, n, sizes.n_ff, bias=bias),
        activation=activation,
        n_used=sizes.n_used,
        gating=sizes.gating,
        selection_bias=tensors.maybe_vector(f"blk.{i}.exp_probs_b.bias", sizes.n_expert),
        n_group=sizes.n_group,
        n_group_used=sizes.n_group_used,
        renormalise=sizes.renormalise,
        scale=sizes.scale,
        scale_input=scale_input,
        shared=_shared(n, sizes.n_ff_shared, i, tensors, activation),
        shared_gate=_shared_gate(n, i, tensors),
    )


def _gate_and_up(sizes: ExpertSizes, n: int, i: int, tensors: Tensors, *, bias: bool) -> tuple[Stack, Stack]:
    shape, both = (sizes.n_expert, sizes.n_ff, n), f"blk.{i}.ffn_gate_up_exps"
    if f"{both}.weight" in tensors:
        return tensors.stacks(both, *shape, bias=bias)
    up, gate = (tensors.stack(f"blk.{i}.ffn_{part}_exps", *shape, bias=bias) for part in ("up", "gate"))
    return gate, up


def _shared(n: int, n_ff: int, i: int, tensors: Tensors, activation: Activation) -> FeedForward | None:
    if not tensors.has_any(*(f"blk.{i}.ffn_{part}_shexp.weight" for part in ("gate", "up", "down"))):
        return None
    gate, up = (tensors.dense(f"blk.{i}.ffn_{part}_shexp", n_ff, n, bias=False) for part in ("gate", "up"))
    return FeedForward(gate=gate, up=up, down=tensors.dense(f"blk.{i}.ffn_down_shexp", n, n_ff), activation=activation)


def _shared_gate(n: int, i: int, tensors: Tensors) -> Dense | None:
    name = f"blk.{i}.ffn_gate_inp_shexp"
    return tensors.dense(name, 1, n, bias=False) if f"{name}.weight" in tensors else None
