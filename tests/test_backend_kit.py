"""The kit for backends lets the right ones pass and names what is wrong with the numbers of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, Forward, Layer, Linear
from sis_core.backends.bind import bind
from sis_core.backends.numpy import NumpyBackend, ReferenceLayer, ReferenceLinear
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.attention import BoundAttention
from sis_core.block import Attention, Block, Dense, FeedForward, Network, Norm, Residual, Rope
from sis_core.experts import Experts
from sis_core.quant import Weight
from sis_core.step import Plan
from sis_core.testing import check_backend


class ByLinear(Backend):
    """Right: every linear in float64."""

    name = "double"

    def linear(self, weight: Weight, options: BackendOptions) -> Linear:
        return lambda x: (x.astype(np.float64) @ weight.dequantize().astype(np.float64).T).astype(np.float32)


class ByLayer(Backend):
    """Right: the reference's own layers, offered as layers."""

    name = "layered"

    def layer(self, block: Block, options: BackendOptions) -> Layer:
        return ReferenceLayer.of(block, ReferenceLinear)


def test_right_backends_pass() -> None:
    check_backend(NumpyBackend(), must_bind=False, formats=check_formats())
    for backend in (ByLinear(), ByLayer()):  # their caches are those of the reference
        check_backend(backend, formats=check_formats(), kv_types=["f16"])


def check_formats() -> list[Any]:
    from sis_core.quant import F32Format

    return [F32Format()]


def spoiled_linear(spoil: Callable[[F32, Weight], F32]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def linear(self, weight: Weight, options: BackendOptions) -> Linear:
            right = ReferenceLinear(weight)
            return lambda x: spoil(right(x), weight)

    return Spoiled()


def linear_of(multiply: Callable[[F32, F32], F32]) -> Backend:
    """A backend that multiplies rows by a decoded matrix in its own way."""

    class Spoiled(Backend):
        name = "spoiled"

        def linear(self, weight: Weight, options: BackendOptions) -> Linear:
            matrix = weight.dequantize()
            return lambda x: multiply(x, matrix)

    return Spoiled()


def _writes_its_input(x: F32, matrix: F32) -> F32:
    y: F32 = x @ matrix.T
    x[:] = 0
    return y


class OneBuffer(Backend):
    """Its linears give out the same memory each time."""

    name = "spoiled"

    def linear(self, weight: Weight, options: BackendOptions) -> Linear:
        right, buffers = ReferenceLinear(weight), dict[tuple[int, ...], F32]()

        def run(x: F32) -> F32:
            y = right(x)
            buffer = buffers.setdefault(y.shape, np.empty_like(y))
            buffer[:] = y
            return buffer

        return run


@frozen(eq=False)
class _SpoiledLayer:
    inner: ReferenceLayer
    spoil: Callable[[Plan], Plan]

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> Any:
        return self.inner.new_state(kv_type, n_pages, page_size)

    def __call__(self, hidden: F32, plan: Plan, state: Any) -> F32:
        return self.inner(hidden, self.spoil(plan), state)


def spoiled_blocks(spoil: Callable[[Any], Any]) -> Backend:
    """Right, but for other ops than those that it was given: ``spoil`` gets every record of each block."""

    def walk(record: Any) -> Any:
        if isinstance(record, tuple):
            return tuple(walk(part) for part in record)
        if isinstance(record, Residual):
            return spoil(evolve(record, branches=walk(record.branches)))
        return spoil(record)

    class Spoiled(Backend):
        name = "spoiled"

        def layer(self, block: Block, options: BackendOptions) -> Layer:
            return ReferenceLayer.of(Block(walk(block.ops), block.state), ReferenceLinear)

    return Spoiled()


def attention(**how: Callable[[Attention], Any]) -> Backend:
    """Each field of every attention by a function of it."""
    return spoiled_blocks(lambda r: evolve(r, **{k: f(r) for k, f in how.items()}) if isinstance(r, Attention) else r)


def experts(**how: Callable[[Experts], Any]) -> Backend:
    return spoiled_blocks(lambda r: evolve(r, **{k: f(r) for k, f in how.items()}) if isinstance(r, Experts) else r)


def feed_forward(**how: Callable[[FeedForward], Any]) -> Backend:
    return spoiled_blocks(lambda r: evolve(r, **{k: f(r) for k, f in how.items()}) if isinstance(r, FeedForward) else r)


def strided(op: Attention, name: str) -> Dense:
    """Query and output projections whose heads are exchanged as by reading key head ``h % n_head_kv``."""
    dense: Dense = getattr(op, name)
    if op.n_head_kv != 2:
        return dense
    matrix = dense.weight.dequantize()
    order = [0, 2, 1, 3]
    if name == "q":
        parts = np.split(matrix, 4)
        return evolve(dense, weight=Weight.from_array("q", np.concatenate([parts[i] for i in order])))
    parts = np.split(matrix, 4, axis=1)
    return evolve(dense, weight=Weight.from_array("out", np.concatenate([parts[i] for i in order], axis=1)))


def without_biases(record: Any) -> Any:
    if not isinstance(record, Attention | FeedForward):
        return record
    dense = {k: v for k in ("q", "k", "v", "out", "up", "down") if isinstance(v := getattr(record, k, None), Dense)}
    return evolve(record, **{name: evolve(d, bias=None) for name, d in dense.items()})


def norms(**values: Any) -> Backend:
    return spoiled_blocks(lambda r: evolve(r, **values) if isinstance(r, Norm) else r)


def ropes(how: Callable[[Rope], Rope]) -> Backend:
    return attention(rope=lambda a: a.rope and how(a.rope))


def of_branches(how: Callable[[tuple[tuple[Any, ...], ...]], list[Any]]) -> Backend:
    """Blocks of other ops: ``how`` makes them of the branches of each residual."""

    class Spoiled(Backend):
        name = "spoiled"

        def layer(self, block: Block, options: BackendOptions) -> Layer:
            ops = [
                evolve(op, scale=residual.scale) if isinstance(op, Residual) else op
                for residual in block.ops
                if isinstance(residual, Residual)
                for op in how(residual.branches)
            ]
            return ReferenceLayer.of(Block(tuple(ops), block.state), ReferenceLinear)

    return Spoiled()


def spoiled_ends(spoil: Callable[[Network], Network]) -> Backend:
    """Right layers between a wrong embedding and a wrong head."""

    class Spoiled(Backend):
        name = "spoiled"

        def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
            return bind(spoil(network), [], options, layers)

    return Spoiled()


class RotatesOnlyQueries(BoundAttention):
    def __init__(self, op: Attention, *projections: BoundDense) -> None:
        super().__init__(op, *projections)
        self.k_heads.rotation = None


class SeesTheFuture(BoundAttention):
    def _scores(self, q: F32, keys: F32, position: np.ndarray, start: int) -> F32:
        return q @ keys.swapaxes(1, 2)[:, None]


class SeesOnlyTheStep(BoundAttention):
    def _scores(self, q: F32, keys: F32, position: np.ndarray, start: int) -> F32:
        scores = super()._scores(q, keys, position, start)
        scores[..., np.arange(start, start + scores.shape[-1]) < position[0]] = -1e30
        return scores


class SeesItsWholeStep(BoundAttention):
    """Forgets the causal mask, but only in steps that go on from others."""

    def _scores(self, q: F32, keys: F32, position: np.ndarray, start: int) -> F32:
        if position[0] and len(position) > 1:
            return q @ keys.swapaxes(1, 2)[:, None]
        return super()._scores(q, keys, position, start)


class MixesSequences(BoundAttention):
    """Reads the keys of the step's longest sequence for all of them."""

    def __call__(self, x: F32, plan: Plan, state: Any) -> F32:
        longest = max(plan.groups, key=lambda group: group.length)
        groups = tuple(group._replace(pages=longest.pages) for group in plan.groups)
        return super().__call__(x, evolve(plan, groups=groups), state)


def attending(kind: type[BoundAttention]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def layer(self, block: Block, options: BackendOptions) -> Layer:
            with mock.patch("sis_core.backends.numpy.ops.attention.BoundAttention", kind):
                return ReferenceLayer.of(block, ReferenceLinear)

    return Spoiled()


def spoiled_plan(spoil: Callable[[Plan], Plan]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def layer(self, block: Block, options: BackendOptions) -> Layer:
            return _SpoiledLayer(ReferenceLayer.of(block, ReferenceLinear), spoil)

    return Spoiled()


class Nothing(Backend):
    name = "nothing"


counter = iter(range(1_000_000))

NUMBERS_OF = "these are the numbers of a backend that "
WRONG: list[tuple[str, Backend, str]] = [
    # Linears.
    ("reversed outputs", spoiled_linear(lambda y, w: y[:, ::-1].copy()),
     r"its linear of a matrix \(64, 64\) in F32 is wrong alone: the outputs are in reverse order"),
    ("transposes", linear_of(lambda x, w: x @ w if w.shape[0] == w.shape[1] else x @ w.T),
     "is wrong alone: it multiplies by the transposed matrix"),
    ("transposes all", linear_of(lambda x, w: x @ w),
     "(?s)a step raised ValueError.*is wrong alone: it multiplies by the transposed matrix"),
    ("raises", linear_of(lambda x, w: np.dot(x, w.T[:-1])),
     r"(?s)a step raised ValueError.*its linear of a matrix \(64, 64\) in F32 is wrong alone: it raises ValueError"),
    ("writes its input", linear_of(_writes_its_input), "it writes into the rows that it is given"),
    ("one buffer", OneBuffer(), "it returns the same memory each time"),
    ("last column", linear_of(lambda x, w: x[:, :-1] @ w[:, :-1].T), "it leaves out the last 1 of 64 columns"),
    ("last row", spoiled_linear(lambda y, w: y * (np.arange(y.shape[1]) < y.shape[1] - 1).astype(np.float32)),
     "is wrong alone: only outputs 63 of 64 are wrong"),
    ("wrong scale", spoiled_linear(lambda y, w: y * np.float32(0.5)),
     "all values are 0.5 times what they should be: a scale is wrong"),
    ("double precision", spoiled_linear(lambda y, w: y.astype(np.float64)), "values are float64, not float32"),
    ("NaN", spoiled_linear(lambda y, w: y * np.float32("nan")), "all at once: not finite"),
    ("not deterministic", spoiled_linear(lambda y, w: y * np.float32(1 + 1e-6 * next(counter))),
     "the same step gave different numbers the second time: something is kept from step to step"),
    # Positions.
    ("ignores positions", spoiled_plan(lambda p: evolve(p, positions=np.zeros_like(p.positions))),
     f"plain with rope of neighbours: {NUMBERS_OF}ignores positions"),
    ("ignores learned positions", spoiled_ends(lambda n: evolve(n, embedding=evolve(n.embedding, positions=None))),
     f"plain with learned positions: {NUMBERS_OF}forgets learned positions"),
    ("positions of the step",
     spoiled_plan(lambda p: evolve(p, positions=np.arange(len(p.positions), dtype=np.int32))),
     f"(?s)token by token: .*right: positions must be those of the batch.*{NUMBERS_OF}ignores positions"),
    ("unrotated keys", attending(RotatesOnlyQueries),
     f"plain with rope of neighbours: {NUMBERS_OF}does not rotate keys"),
    ("wrong pairs", ropes(lambda r: evolve(r, style="norm")), f"rope of halves: {NUMBERS_OF}rotates the wrong pairs"),
    ("whole head", ropes(lambda r: evolve(r, frequencies=10000.0 ** (-np.arange(8) / 8))),
     f"rope of a part of each head: {NUMBERS_OF}rotates the whole head"),
    ("no magnitude", ropes(lambda r: evolve(r, magnitude=1.0)), f"{NUMBERS_OF}forgets the magnitude of rope"),
    # Attention.
    ("no scale", attention(scale=lambda a: 1.0), f"{NUMBERS_OF}forgets the scale of the scores"),
    ("scale of its own", attention(scale=lambda a: 1 / a.head_dim), f"{NUMBERS_OF}scales scores by 1 / head_dim"),
    ("no cap", attention(softcap=lambda a: None),
     f"a soft-cap of scores: {NUMBERS_OF}forgets the soft-cap of the scores"),
    ("no window", attention(window=lambda a: None), f"{NUMBERS_OF}ignores the window"),
    ("wide window", attention(window=lambda a: a.window and a.window + 1),
     f"{NUMBERS_OF}has a window that is one token too wide"),
    ("narrow window", attention(window=lambda a: a.window and a.window - 1),
     f"{NUMBERS_OF}has a window that is one token too narrow"),
    ("no causal mask", attending(SeesTheFuture),
     f"all at once.*(?s:.*){NUMBERS_OF}lets a token see those after it: no causal mask"),
    ("forgets the cache", attending(SeesOnlyTheStep),
     f"(?s)token by token.*keys those of the steps before too.*{NUMBERS_OF}lets a token see only itself"),
    ("no mask later", attending(SeesItsWholeStep), "(?s)in chunks.*must see those, and of its own only those before"),
    ("mixes sequences", attending(MixesSequences),
     "(?s)among others.*rows of another sequence in the same step are mixed"),
    ("strided heads", attention(q=lambda a: strided(a, "q"), out=lambda a: strided(a, "out")),
     f"key heads that query heads share: {NUMBERS_OF}lets query head h read key head h % n_head_kv"),
    ("no head norms", attention(q_norm=lambda a: None, k_norm=lambda a: None),
     f"{NUMBERS_OF}forgets the norms of queries and keys"),
    # Biases, norms, feed-forwards, residuals.
    ("no bias", spoiled_blocks(without_biases),
     f"plain with biases: {NUMBERS_OF}forgets the biases of linears"),
    ("no attention bias", spoiled_blocks(lambda r: without_biases(r) if isinstance(r, Attention) else r),
     f"{NUMBERS_OF}forgets the biases of attention"),
    ("no feed-forward bias", spoiled_blocks(lambda r: without_biases(r) if isinstance(r, FeedForward) else r),
     f"{NUMBERS_OF}forgets the biases of the feed-forward"),
    ("RMS only", norms(kind="rms"), f"layer norms: {NUMBERS_OF}does not subtract the mean"),
    ("no norm bias", norms(bias=None), f"layer norms: {NUMBERS_OF}forgets the biases of norms"),
    ("no norm weight", norms(weight=None), f"{NUMBERS_OF}forgets the weights of norms"),
    ("no eps", norms(eps=0.0), f"{NUMBERS_OF}forgets the norm's eps"),
    ("another activation", feed_forward(activation=lambda f: "silu" if f.activation == "gelu" else f.activation),
     f"plain with GELU: {NUMBERS_OF}has the activation silu, not the one that it is told"),
    ("no gate", feed_forward(gate=lambda f: None), f"plain with a gate: {NUMBERS_OF}forgets the gate"),
    ("swapped gate", feed_forward(gate=lambda f: f.gate and f.up, up=lambda f: f.gate or f.up),
     f"{NUMBERS_OF}activates the up projection, not the gate"),
    # Experts.
    ("another expert", experts(up=lambda e: evolve(e.up, weight=Weight.from_array(
        "up", np.roll(e.up.weight.dequantize(), 1, axis=0)))),
     f"plain with experts: {NUMBERS_OF}takes another expert's up matrix"),
    ("gates in the second half", experts(
        gate=lambda e: e.up if e.up.half else e.gate, up=lambda e: e.gate if e.up.half else e.up),
     f"plain with experts with gates and ups in one tensor: {NUMBERS_OF}activates the ups of experts, not their gates"),
    ("renormalised", experts(renormalise=lambda e: True), f"{NUMBERS_OF}renormalises the weights of experts"),
    ("sigmoids", experts(gating=lambda e: "softmax"), f"{NUMBERS_OF}weights experts by softmax, not as it is told"),
    ("no selection bias", experts(selection_bias=lambda e: None),
     f"{NUMBERS_OF}forgets the bias of the choice of experts"),
    ("no groups", experts(n_group=lambda e: 1, n_group_used=lambda e: 1),
     f"{NUMBERS_OF}forgets that experts come in groups"),
    ("no scaled inputs", experts(scale_input=lambda e: False),
     f"{NUMBERS_OF}weights what comes out of experts, not what goes in"),
    ("no shared expert", experts(shared=lambda e: None, shared_gate=lambda e: None),
     f"{NUMBERS_OF}forgets the shared expert"),
    ("no residual", of_branches(lambda branches: [op for branch in branches for op in branch]),
     f"smallest network that shows it has nothing but.*{NUMBERS_OF}forgets to add a branch to what went into it"),
    ("parallel made sequential", of_branches(lambda branches: [Residual((branch,)) for branch in branches]),
     f"plain with parallel branches: {NUMBERS_OF}runs parallel branches one after the other"),
    ("no norm after a branch", of_branches(lambda branches: [Residual(tuple(b[:2] for b in branches))]),
     f"plain with norms after its branches: {NUMBERS_OF}forgets the norm after a branch"),
    # Ends.
    ("no embedding scale", spoiled_ends(lambda n: evolve(n, embedding=evolve(n.embedding, scale=1.0))),
     f"{NUMBERS_OF}forgets the scale of the embedding"),
    ("no embedding norm", spoiled_ends(lambda n: evolve(n, embedding=evolve(n.embedding, norm=None))),
     f"{NUMBERS_OF}forgets the norm of the embedding"),
    ("no output norm", spoiled_ends(lambda n: evolve(n, head=evolve(n.head, norm=None))),
     f"{NUMBERS_OF}forgets the output norm"),
    ("no logit cap", spoiled_ends(lambda n: evolve(n, head=evolve(n.head, softcap=None))),
     f"{NUMBERS_OF}forgets the soft-cap of the logits"),
    ("no logit scale", spoiled_ends(lambda n: evolve(n, head=evolve(n.head, scale=1.0))),
     f"{NUMBERS_OF}forgets the scale of the logits"),
    ("binds nothing", Nothing(), r"to every network in F32: nothing was tested; .*formats=\[…\] of check"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_backend_is_named(backend: Backend, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_backend(backend, formats=check_formats(), kv_types=["f32"])


def test_an_idle_backend_is_named() -> None:
    class Idle(Backend):
        name = "idle"

        def idle_reason(self) -> str:
            return "no such instruction"

    with pytest.raises(AssertionError, match="idle is idle on this machine: no such instruction"):
        check_backend(Idle())
