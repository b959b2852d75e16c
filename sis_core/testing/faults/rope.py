"""What goes wrong with positions."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from sis_core.block import (
    Attention,
    Embedding,
    Network,
    Rope,
)
from sis_core.quant import Weight
from sis_core.rope import rope_frequencies
from sis_core.testing.faults.change import Fault, change, every, setting
from sis_core.testing.faults.whole_text import wrong_attention


def _no_positions(network: Network) -> Network:
    def first_row(embedding: Embedding) -> Embedding:
        if embedding.positions is None:
            return embedding
        values = np.tile(embedding.positions.take(np.array([0])), (embedding.positions.n_rows, 1))
        return evolve(embedding, positions=Weight.from_array(embedding.positions.name, values))

    still = change(network, Rope, lambda rope: evolve(rope, frequencies=0 * rope.frequencies))
    return change(still, Embedding, first_row)


def _whole_head(op: Attention) -> Attention:
    if op.rope is None or op.rope.n_rot == op.head_dim:
        return op
    return evolve(op, rope=evolve(op.rope, frequencies=rope_frequencies(op.head_dim, 10000.0)))


def _other_style(rope: Rope) -> Rope:
    return evolve(rope, style="norm" if rope.style == "neox" else "neox")


def _has_rope(op: Attention) -> Rope | None:
    return op.rope


FAULTS = (
    Fault("ignores positions", _no_positions),
    Fault("forgets learned positions", setting(Embedding, positions=None)),
    wrong_attention("does not rotate keys", _has_rope, rotates_k=False),
    wrong_attention("does not rotate queries", _has_rope, rotates_q=False),
    Fault("rotates the wrong pairs: neighbours for halves, or halves for neighbours", every(Rope, _other_style)),
    Fault("rotates the whole head, not its first n_rot values", every(Attention, _whole_head)),
    Fault("forgets the magnitude of rope", setting(Rope, magnitude=1.0)),
    Fault("normalises heads after it rotates them, or before, where it should be the other way",
          every(Attention, lambda op: evolve(op, norm_first=not op.norm_first) if op.q_norm and op.rope else op)),
)  # fmt: skip
