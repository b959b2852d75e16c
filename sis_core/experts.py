"""Feed-forward networks of which each row uses a few: the record that a backend turns into arithmetic."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from sis_core.block import Activation, Dense, FeedForward, Op
from sis_core.quant import Weight

PART_OUT = 512  # columns of results that native code has at a time
Gating = Literal["softmax", "sigmoid", "softmax_weight", "sparse_mixer"]


@frozen(eq=False)
class Stack:
    """A `Dense` for each expert: weight ``(n_expert, n_out, n_in)``, bias ``(n_expert, n_out)``.

    ``half``: None, or 0 or 1 where the weight holds two stacks ``(n_expert, 2 * n_out, n_in)``: which half of each
    matrix's rows this is.
    """

    weight: Weight
    bias: Weight | None = None
    half: Literal[0, 1] | None = None

    @property
    def n_expert(self) -> int:
        return self.weight.shape[0]

    @property
    def n_out(self) -> int:
        return self.weight.shape[1] // (1 if self.half is None else 2)

    def expert(self, i: int) -> Weight:
        """The matrix ``(n_out, n_in)`` of expert ``i``."""
        matrix = self.weight.expert(i)
        return matrix if self.half is None else matrix.rows(self.half * self.n_out, (self.half + 1) * self.n_out)


@frozen(eq=False)
class Experts(Op):
    """Feed-forward networks of which each row uses a few: the sum of their outputs, weighted by a router.

    Of ``logits = router(x)``, the experts with the ``n_used`` highest scores are used, of equal ones the first. Scores
    are the logits after ``gating``, plus ``selection_bias``; weights are the logits of the chosen after ``gating``.

    Source: Shazeer et al. 2017, "Outrageously Large Neural Networks"; groups and ``selection_bias``: DeepSeek-AI 2024,
    "DeepSeek-V3 Technical Report", section 2.1.2.

    Attributes:
        router: ``(n_expert, n_in)``.
        gate: None for experts without a gate; see `FeedForward`.
        gating: ``softmax`` of all logits, ``sigmoid`` of each, or ``softmax_weight``, the softmax of the chosen, or
            ``sparse_mixer``: the softmax of those that are left when an expert is chosen and at most a fiftieth below
            it (Liu et al. 2024, "GRIN: GRadient-INformed MoE").
        selection_bias: ``(n_expert,)``, added to the scores and not to the weights.
        n_group, n_group_used: experts come in groups, of which only those with the highest sums of their best two
            scores are used.
        renormalise: weights are divided by their sum,
        scale: and then multiplied by this.
        scale_input: weights multiply what goes into the experts, not what comes out (Llama 4).
        shared: a feed-forward that every row uses beside its experts,
        shared_gate: weighted by the sigmoid of this, ``(1, n_in)``.
    """

    router: Dense
    up: Stack
    down: Stack
    activation: Activation
    n_used: int
    gate: Stack | None = None
    gating: Gating = "softmax"
    selection_bias: Weight | None = None
    n_group: int = 1
    n_group_used: int = 1
    renormalise: bool = True
    scale: float = 1.0
    scale_input: bool = False
    shared: FeedForward | None = None
    shared_gate: Dense | None = None

    @property
    def n_expert(self) -> int:
        return self.up.n_expert

    @property
    def n_working(self) -> int:
        """Values that a row needs for each of its experts: those between up and down, and beside them what goes in, or
        what goes into down and a part of what comes out."""
        n_in, n_ff = self.up.weight.n_cols, self.up.n_out
        return n_ff + max(n_in, n_ff + PART_OUT)

    def reads(self) -> tuple[Weight, ...]:
        """Those of the router, of gates and ups, and of the shared expert and its gate."""
        stacks = tuple(stack.weight for stack in (self.gate, self.up) if stack)
        shared = self.shared.reads() if self.shared else ()
        return (self.router.weight, *stacks, *shared, *((self.shared_gate.weight,) if self.shared_gate else ()))

    def n_out(self, n_in: int) -> int:
        """The rows of a down matrix."""
        return self.down.n_out
