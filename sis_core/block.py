"""What a network is made of: frozen records that any backend can read.

A family turns a file into these records; a backend turns them into arithmetic. A record says everything that the
arithmetic needs, so a backend that does not know a record, or a value of one of its fields, answers None for it and the
next backend is asked. Shapes: ``hidden`` is ``(n, n_embd)``, one row per token of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, F64, I32
from sis_core.quant import Weight
from sis_core.step import Plan

STEP_ROWS = 512
_PLAIN = frozenset({type(None), bool, int, float, str, np.ndarray})  # no records, as most of what records hold

T = TypeVar("T")
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_oai"]
NormKind = Literal["rms", "layer"]


class Op:
    """Any record of a block. Its arithmetic is one file in each backend; a plugin's own op is a `CustomOp`."""

    __slots__ = ()

    def reads(self) -> tuple[Weight, ...]:
        """The matrices that multiply what comes in."""
        return ()

    def n_out(self, n_in: int) -> int:
        """Values of a row that come out where ``n_in`` come in."""
        return n_in


@frozen(eq=False)
class Norm(Op):
    """Root-mean-square or layer normalisation of each row, times ``weight`` plus ``bias`` (each optional).

    ``pieces``: equal parts of the row that are normalised apart, each with its own values of ``weight``.
    """

    kind: NormKind
    eps: float
    weight: Weight | None = None
    bias: Weight | None = None
    pieces: int = 1


@frozen(eq=False)
class Dense(Op):
    """``y = x @ weight.T + bias``: weight ``(n_out, n_in)``, bias ``(n_out,)``."""

    weight: Weight
    bias: Weight | None = None

    def reads(self) -> tuple[Weight, ...]:
        """Its one matrix."""
        return (self.weight,)

    def n_out(self, n_in: int) -> int:
        """The rows of the matrix."""
        return self.weight.n_rows


@frozen(eq=False)
class Rope:
    """Rotary position embedding of the first ``2 * len(frequencies)`` values of each head.

    Every way of stretching a context (linear, NTK, YaRN, per-dimension factors) is a choice of ``frequencies`` and
    ``magnitude``, made once by `sis_core.rope`; a backend needs to know none of them.

    Attributes:
        frequencies: float64 ``(n_rot // 2,)``, radians per position.
        style: ``norm`` rotates neighbours ``(2i, 2i + 1)``, ``neox`` rotates ``(i, i + n_rot // 2)``.
        magnitude: factor on both the cosine and the sine.
    """

    frequencies: F64
    style: Literal["norm", "neox"] = "norm"
    magnitude: float = 1.0

    @property
    def n_rot(self) -> int:
        return 2 * len(self.frequencies)


@frozen
class PositionScale:
    """A factor on queries that grows with the text: ``1 + beta * ln(1 + floor((position + offset) / n_ctx_original))``.

    Source: Meta AI 2025, "Llama 4", temperature tuning of attention; after Nakanishi 2025, "Scalable-Softmax".
    """

    beta: float
    n_ctx_original: int
    offset: int = 0

    def factors(self, positions: I32) -> F64:
        """Float64, one for each position."""
        turns = np.floor((positions.astype(np.float64) + self.offset) / self.n_ctx_original)
        found: F64 = 1 + self.beta * np.log1p(turns)
        return found


@frozen(eq=False)
class Attention(Op):
    """Self-attention with grouped key and value heads; reads and extends the block's `KV` state.

    In order: project; ``clamp``; ``q_norm`` and ``k_norm``; rope; ``q_scale``; ``softmax(softcap(scale * q @ k.T) +
    alibi) @ v``; out.

    Attributes:
        k, v: None, both, in a block that reads another's state; see `Block.reads_state_of`.
        head_dim: values of a query and of a key head.
        scale: factor on ``q @ k.T``.
        window: a token sees itself and the ``window - 1`` tokens before it; None for all before it.
        softcap: scores become ``softcap * tanh(score / softcap)``; None for no cap.
        v_dim: values of a value head; by default ``head_dim``.
        causal: whether a token sees none of those after it. Where it does, it sees those of its own step.
        clamp: what q, k and v are limited to, both ways; None for no limit.
        q_norm, k_norm: over each head or, where their weight is as wide as all heads, over all of them at once.
        norm_first: whether heads are normalised before they are rotated.
        q_scale: None for no factor.
        alibi: float32 ``(n_head,)``, what a key's score loses per token that it lies behind the query (Press et al.
            2022, "Train Short, Test Long"); None for none.
        sinks: ``(n_head,)``, a score more in each head's softmax, without a value (Xiao et al. 2024, "Efficient
            Streaming Language Models with Attention Sinks"); None for none.
    """

    q: Dense
    k: Dense | None
    v: Dense | None
    out: Dense
    n_head: int
    n_head_kv: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None
    softcap: float | None = None
    v_dim: int | None = None
    causal: bool = True
    clamp: float | None = None
    norm_first: bool = True
    q_scale: PositionScale | None = None
    alibi: F32 | None = None
    sinks: Weight | None = None

    @property
    def state(self) -> KV | None:
        """What a layer with this attention keeps; None where it reads what another keeps."""
        if self.k is None:
            return None
        return KV(self.n_head_kv, self.head_dim, self.v_dim or self.head_dim, self.window)

    def reads(self) -> tuple[Weight, ...]:
        """Those of queries, keys and values."""
        return tuple(dense.weight for dense in (self.q, self.k, self.v) if dense)

    def n_out(self, n_in: int) -> int:
        """The rows of the output matrix."""
        return self.out.weight.n_rows


@frozen(eq=False)
class FeedForward(Op):
    """``down(activation(gate(x)) * up(x))``, or ``down(activation(up(x)))`` where there is no gate.

    The activation ``swiglu_oai`` takes both, clamped: ``g * sigmoid(1.702 * g) * (u + 1)`` with ``g = min(gate(x), 7)``
    and ``u`` = up(x) within 7 of 0. Source: OpenAI 2025, "gpt-oss", reference implementation.
    """

    up: Dense
    down: Dense
    activation: Activation
    gate: Dense | None = None

    def reads(self) -> tuple[Weight, ...]:
        """Those of the gate, where there is one, and up."""
        return (self.gate.weight, self.up.weight) if self.gate else (self.up.weight,)

    def n_out(self, n_in: int) -> int:
        """The rows of the down matrix."""
        return self.down.weight.n_rows


@runtime_checkable
class CustomOp(Protocol):
    """An op that core does not know: the reference backend calls it, other backends answer None for it."""

    def compute(self, hidden: F32, plan: Plan, state: Any) -> F32:
        """Return ``(n, n_embd)`` for ``hidden`` ``(n, n_embd)``, the rows of ``plan``.

        A row's result depends on the rows of its own sequence alone: this one, those before, and what they left in
        ``state``. That is the block's storage: None without a state, `sis_core.backends.numpy.pages.StatePages` for a
        state that core does not know. It writes no page but those that ``plan`` says.
        """


@frozen(eq=False)
class Residual(Op):
    """``x + scale * sum(branch(x))``; each branch is a chain of ops. Two are GPT-NeoX's parallel residual."""

    branches: tuple[tuple[Op, ...], ...]
    scale: float = 1.0


class State(Protocol):
    """What a layer keeps of each sequence, in pages of the cache; `KV` is one.

    How far back a layer looks decides what its state can do. One that sees every token can be cut anywhere, one with a
    window as long as the window before the cut is still kept, one that sums up the text only at a `Cache.mark`. All are
    shared by forks (a page that two sequences hold is copied, or left alone, by whoever writes) and saved page by page.
    """

    @property
    def window(self) -> int | None:
        """None: a row sees every token before it. ``w``: itself and the ``w - 1`` tokens before it. 0: no token, but
        what the text before it comes to."""

    def token_nbytes(self, value_bytes: float) -> float:
        """Bytes that a token takes where a value takes ``value_bytes``; 0 where the window is 0."""

    @property
    def sequence_nbytes(self) -> int:
        """Bytes that a sequence takes, however long; 0 where the window is not 0."""


@frozen
class KV:
    """What a layer with attention keeps per token: ``n_head_kv`` keys of ``k_dim`` and values of ``v_dim``."""

    n_head_kv: int
    k_dim: int
    v_dim: int
    window: int | None = None

    def token_nbytes(self, value_bytes: float) -> float:
        return self.n_head_kv * (self.k_dim + self.v_dim) * value_bytes

    @property
    def sequence_nbytes(self) -> int:
        return 0


@frozen(eq=False)
class Block:
    """One layer: ops run in order on ``hidden``.

    Attributes:
        state: the record of the state that the layer keeps, or None.
        reads_state_of: the layer, before this one, whose state this one reads in place of one of its own, or None.
    """

    ops: tuple[Op, ...]
    state: State | None = None
    reads_state_of: int | None = None

    def flat(self) -> tuple[Op, ...]:
        """Its ops, with those of a residual's branches in its place."""
        residuals = (op.branches if isinstance(op, Residual) else ((op,),) for op in self.ops)
        return tuple(op for branches in residuals for branch in branches for op in branch)


@frozen(eq=False)
class Embedding:
    """Tokens to rows: ``norm(scale * weight[token] + positions[position])``."""

    weight: Weight
    scale: float = 1.0
    positions: Weight | None = None
    norm: Norm | None = None


@frozen(eq=False)
class Head:
    """Rows to logits: ``softcap(scale * dense(norm(x)))``. Hidden states are given out after ``norm``."""

    norm: Norm | None
    dense: Dense
    scale: float = 1.0
    softcap: float | None = None


@frozen(eq=False)
class Network:
    """Everything a backend needs to run a model.

    Attributes:
        step_rows: rows of a text that should share a step: as many as Ctrl-C waits for, more where experts share them.
    """

    n_embd: int
    n_vocab: int
    n_ctx: int
    embedding: Embedding
    blocks: tuple[Block, ...]
    head: Head
    step_rows: int = STEP_ROWS

    @property
    def n_layer(self) -> int:
        return len(self.blocks)

    @property
    def causal(self) -> bool:
        """Whether texts can be fed bit by bit. Where they cannot, each must be whole within one step."""
        return all(op.causal for op in find(self.blocks, Attention))

    def weights(self, layers: range | None = None) -> Iterator[Weight]:
        """Every weight of a range of layers (all by default), in order of use: with the embedding before the first and
        the head after the last. A tied tensor appears once for each use."""
        layers = range(self.n_layer) if layers is None else layers
        if layers.start == 0:
            yield from find_weights(self.embedding)
        yield from find_weights(self.blocks[layers.start : layers.stop])
        if layers.stop == self.n_layer:
            yield from find_weights(self.head)


def find_weights(record: object) -> Iterator[Weight]:
    """Every `Weight` inside a record or a nested tuple of records."""
    return find(record, Weight)


def find(record: object, kind: type[T]) -> Iterator[T]:
    """Every record of a kind inside a record or a nested tuple of records; a weight counts as a whole."""
    waiting: list[Any] = [record]
    while waiting:
        if isinstance(record := waiting.pop(), kind):
            yield record
        own: Any = type(record)
        inside = record[::-1] if isinstance(record, tuple) else [getattr(record, name) for name in _fields(own)]
        waiting += [held for held in inside if type(held) not in _PLAIN]


@cache
def _fields(kind: type) -> tuple[str, ...]:
    """The fields of a kind of record, the last one first; of a weight, which counts as a whole, none."""
    return tuple(f.name for f in reversed(() if issubclass(kind, Weight) else getattr(kind, "__attrs_attrs__", ())))
