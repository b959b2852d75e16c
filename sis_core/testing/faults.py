"""What backends usually get wrong, each as a change to a network: the reference then gives the wrong numbers too.

Where a backend's numbers are those of a changed network, the change names the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs
import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backends.numpy.activations import ACTIVATIONS, softcap
from sis_core.backends.numpy.linear import BoundDense, ReferenceLinear
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.backends.numpy.rotation import Rotation
from sis_core.block import (
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Head,
    Network,
    Norm,
    Residual,
    Rope,
    rope_frequencies,
)
from sis_core.quant import Weight
from sis_core.step import Plan

T = TypeVar("T")


@frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        words: go on after "a backend that".
        spoil: returns the same network where it has nothing to spoil.
        whole_text: right only for a step that is a whole text: see `WholeText`.
    """

    words: str
    spoil: Callable[[Network], Network]
    whole_text: bool = False


def faults(network: Network, whole_text: bool) -> Iterator[tuple[str, Network]]:
    """Every fault that ``network`` can show, with the network that has it, everywhere or between its ends only."""
    for fault in FAULTS:
        if fault.whole_text and not whole_text:
            continue
        spoilt = fault.spoil(network)
        if spoilt is not network:
            yield fault.words, spoilt
        if spoilt.blocks is not network.blocks and (spoilt.head, spoilt.embedding) != (network.head, network.embedding):
            yield f"{fault.words}, in its layers", evolve(network, blocks=spoilt.blocks)


def change(record: T, kind: type[Any], how: Callable[[Any], Any]) -> T:
    """``record`` with every record of a kind inside it replaced; itself where nothing changes."""
    found: Any = record
    if isinstance(record, tuple):
        parts = tuple(change(part, kind, how) for part in record)
        found = record if all(a is b for a, b in zip(parts, record, strict=True)) else parts
    else:
        old = _fields(record)
        new = {name: change(value, kind, how) for name, value in old.items()}
        if any(new[name] is not old[name] for name in old):
            found = evolve(found, **new)
    return how(found) if isinstance(found, kind) else found  # type: ignore[no-any-return]


def _fields(record: object) -> dict[str, Any]:
    """What a record holds; a weight counts as a whole."""
    kind: Any = type(record)
    if not attrs.has(kind) or isinstance(record, Weight):
        return {}
    return {field.name: getattr(record, field.name) for field in attrs.fields(kind)}


def _all(kind: type[Any], how: Callable[[Any], Any]) -> Callable[[Network], Network]:
    return lambda network: change(network, kind, how)


def _set(kind: type[Any], /, **values: Any) -> Callable[[Network], Network]:
    """Give fields of a kind other values, where they are not those already."""

    def how(record: Any) -> Any:
        same = all(getattr(record, name) == value for name, value in values.items())
        return record if same else evolve(record, **values)

    return _all(kind, how)


def _window(by: int) -> Callable[[Network], Network]:
    return _all(Attention, lambda op: evolve(op, window=op.window + by) if op.window else op)


def _window_everywhere(network: Network) -> Network:
    windows = [op.window for op in records(network, Attention) if op.window]
    return _set(Attention, window=windows[0])(network) if windows else network


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


def _no_bias_in_attention(op: Attention) -> Attention:
    if op.q.bias is None and op.k.bias is None and op.v.bias is None and op.out.bias is None:
        return op
    q, k, v, out = (evolve(dense, bias=None) for dense in (op.q, op.k, op.v, op.out))
    return evolve(op, q=q, k=k, v=v, out=out)


def _no_bias_in_feed_forward(op: FeedForward) -> FeedForward:
    if op.up.bias is None:
        return op
    gate = evolve(op.gate, bias=None) if op.gate else None
    return evolve(op, up=evolve(op.up, bias=None), down=evolve(op.down, bias=None), gate=gate)


def _swapped_gate(op: FeedForward) -> FeedForward:
    return op if op.gate is None else evolve(op, gate=op.up, up=op.gate)


def _strided_heads(op: Attention) -> Attention:
    """Query head ``h`` reads key head ``h % n_head_kv``: the same as other query heads in each group."""
    if op.n_head_kv in (1, op.n_head):
        return op
    order = np.argsort(np.arange(op.n_head) % op.n_head_kv, kind="stable")
    columns = (order[:, None] * op.head_dim + np.arange(op.head_dim)).reshape(-1)
    bias = op.q.bias
    if bias is not None:
        bias = Weight.from_array(bias.name, bias.dequantize()[columns])
    q = Dense(Weight.from_array(op.q.weight.name, op.q.weight.dequantize()[columns]), bias)
    out = evolve(op.out, weight=Weight.from_array(op.out.weight.name, op.out.weight.dequantize()[:, columns]))
    return evolve(op, q=q, out=out)


def _transposed(dense: Dense) -> Dense:
    weight = dense.weight
    if weight.n_rows != weight.n_cols:
        return dense
    return evolve(dense, weight=Weight.from_array(weight.name, np.ascontiguousarray(weight.dequantize().T)))


def _without_input(block: Block) -> Block:
    if any(isinstance(op, Residual) and len(op.branches) != 1 for op in block.ops):
        return block
    ops = [inner for op in block.ops for inner in (op.branches[0] if isinstance(op, Residual) else (op,))]
    return evolve(block, ops=tuple(ops))


def _one_after_the_other(block: Block) -> Block:
    if not any(isinstance(op, Residual) and len(op.branches) > 1 for op in block.ops):
        return block
    ops = [Residual((branch,)) for op in block.ops if isinstance(op, Residual) for branch in op.branches]
    return evolve(block, ops=tuple(ops))


def _at_once(block: Block) -> Block:
    if any(not isinstance(op, Residual) for op in block.ops) or len(block.ops) < 2:
        return block
    branches = tuple(branch for op in block.ops if isinstance(op, Residual) for branch in op.branches)
    return evolve(block, ops=(Residual(branches),))


def _no_post_norm(residual: Residual) -> Residual:
    def cut(branch: tuple[Any, ...]) -> tuple[Any, ...]:
        return branch[:-1] if len(branch) > 2 and isinstance(branch[-1], Norm) else branch

    branches = tuple(cut(branch) for branch in residual.branches)
    same = all(a is b for a, b in zip(branches, residual.branches, strict=True))
    return residual if same else evolve(residual, branches=branches)


def records(record: object, kind: type[T]) -> Iterator[T]:
    """Every record of a kind inside a record or a nested tuple of records."""
    if isinstance(record, kind):
        yield record
    if isinstance(record, tuple):
        for part in record:
            yield from records(part, kind)
    else:
        for value in _fields(record).values():
            yield from records(value, kind)


@frozen(eq=False)
class WholeText:
    """Attention with a fault that no field of `Attention` can say; right only in a step that is a whole text."""

    op: Attention
    rotates_q: bool = True
    rotates_k: bool = True
    causal: bool = True
    norm_first: bool = True

    def compute(self, hidden: F32) -> F32:
        """``(n, n_embd)`` of a text from its beginning to ``(n, n_embd)``."""
        op, n = self.op, len(hidden)
        plan = Plan(np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32), (), n)
        q = self._heads(op.q, op.q_norm, op.n_head, self.rotates_q, hidden, plan)
        k = self._heads(op.k, op.k_norm, op.n_head_kv, self.rotates_k, hidden, plan)
        v = self._heads(op.v, None, op.n_head_kv, False, hidden, plan)
        k, v = (np.repeat(x, op.n_head // op.n_head_kv, axis=1) for x in (k, v))
        scores = np.einsum("mhd,nhd->hmn", q, k) * np.float32(op.scale)
        if op.softcap is not None:
            scores = softcap(scores, op.softcap)
        ago = np.arange(n)[:, None] - np.arange(n)
        hides = (ago < 0 if self.causal else np.zeros_like(ago, bool)) | (ago >= (op.window or n))
        scores = np.where(hides, np.float32(-np.inf), scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hmn,nhd->mhd", weights, v).reshape(n, -1)
        return _linear(op.out, mixed.astype(np.float32))

    def _heads(self, dense: Dense, norm: Norm | None, n: int, rotates: bool, hidden: F32, plan: Plan) -> F32:
        heads = _linear(dense, hidden).reshape(len(hidden), n, -1)
        steps: list[Callable[[F32], F32]] = []
        if norm is not None:
            steps.append(BoundNorm(norm))
        if rotates and self.op.rope is not None:
            rotation = Rotation(self.op.rope)
            steps.append(lambda x: rotation(x, plan))
        for step in steps if self.norm_first else reversed(steps):
            heads = step(heads)
        return heads


def _linear(dense: Dense, x: F32) -> F32:
    return BoundDense.of(dense, ReferenceLinear(dense.weight))(x)


def _attention(words: str, applies: Callable[[Attention], object], **wrong: bool) -> Fault:
    return Fault(words, _all(Attention, lambda op: WholeText(op, **wrong) if applies(op) else op), whole_text=True)


def _has_rope(op: Attention) -> Rope | None:
    return op.rope


FAULTS: tuple[Fault, ...] = (
    Fault("ignores positions", _no_positions),
    Fault("forgets learned positions", _set(Embedding, positions=None)),
    _attention("does not rotate keys", _has_rope, rotates_k=False),
    _attention("does not rotate queries", _has_rope, rotates_q=False),
    Fault("rotates the wrong pairs: neighbours for halves, or halves for neighbours", _all(Rope, _other_style)),
    Fault("rotates the whole head, not its first n_rot values", _all(Attention, _whole_head)),
    Fault("forgets the magnitude of rope", _set(Rope, magnitude=1.0)),
    _attention("normalises heads after it rotates them", lambda op: op.q_norm and op.rope, norm_first=False),
    Fault("forgets the norms of queries and keys", _set(Attention, q_norm=None, k_norm=None)),
    Fault("forgets the scale of the scores", _set(Attention, scale=1.0)),
    Fault("scales scores by 1 / head_dim, not by the scale that it is told",
          _all(Attention, lambda op: evolve(op, scale=1 / op.head_dim))),
    Fault("forgets the soft-cap of the scores", _set(Attention, softcap=None)),
    _attention("lets a token see those after it: no causal mask", lambda op: True, causal=False),
    Fault("lets a token see only itself: keys and values of the tokens before it are not read",
          _set(Attention, window=1)),
    Fault("ignores the window", _set(Attention, window=None)),
    Fault("has a window that is one token too wide", _window(1)),
    Fault("has a window that is one token too narrow", _window(-1)),
    Fault("uses the window of one layer in all", _window_everywhere),
    Fault("lets query head h read key head h % n_head_kv, not h // (n_head / n_head_kv)",
          _all(Attention, _strided_heads)),
    Fault("forgets the biases of linears", _set(Dense, bias=None)),
    Fault("forgets the biases of attention", _all(Attention, _no_bias_in_attention)),
    Fault("forgets the biases of the feed-forward", _all(FeedForward, _no_bias_in_feed_forward)),
    Fault("multiplies by the transposed matrix, where it is square", _all(Dense, _transposed)),
    *(Fault(f"has the activation {name}, not the one that it is told", _set(FeedForward, activation=name))
      for name in ACTIVATIONS),
    Fault("forgets the gate", _set(FeedForward, gate=None)),
    Fault("activates the up projection, not the gate", _all(FeedForward, _swapped_gate)),
    Fault("forgets the biases of norms", _set(Norm, bias=None)),
    Fault("forgets the weights of norms", _set(Norm, weight=None)),
    Fault("does not subtract the mean: an RMS norm for a layer norm", _set(Norm, kind="rms")),
    Fault("subtracts the mean: a layer norm for an RMS norm", _set(Norm, kind="layer")),
    Fault("forgets the norm's eps", _set(Norm, eps=0.0)),
    Fault("forgets the norm after a branch", _all(Residual, _no_post_norm)),
    Fault("forgets to add a branch to what went into it", _all(Block, _without_input)),
    Fault("runs parallel branches one after the other", _all(Block, _one_after_the_other)),
    Fault("gives branches that follow each other the same input", _all(Block, _at_once)),
    Fault("forgets the scale of the embedding", _set(Embedding, scale=1.0)),
    Fault("forgets the norm of the embedding", _set(Embedding, norm=None)),
    Fault("forgets the output norm", _set(Head, norm=None)),
    Fault("forgets the soft-cap of the logits", _set(Head, softcap=None)),
    Fault("forgets the scale of the logits", _set(Head, scale=1.0)),
)  # fmt: skip
