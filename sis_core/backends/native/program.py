"""Blocks as a list of operations for `sis_run`: every record becomes a few ops on numbered registers.

`Unsupported` says which record or value the kernels do not know; the backend then answers None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sis_core.arrays import F32, F64
from sis_core.backends.native import abi
from sis_core.backends.native.library import address
from sis_core.backends.native.weights import Store
from sis_core.block import KV, Attention, Block, Dense, Embedding, FeedForward, Head, Norm, Residual, Rope
from sis_core.quant import Weight


class Unsupported(Exception):  # noqa: N818 - no error, an answer
    """A record, or a value of one, that native code does not know."""


def dense_weights(blocks: Sequence[Block], head: Head | None) -> Iterator[Weight]:
    """Every matrix that will be multiplied, in order of use; Unsupported for a record that is not known."""
    for block in blocks:
        for op in block.ops:
            yield from _op_weights(op)
    if head:
        yield head.dense.weight


def _op_weights(op: object) -> Iterator[Weight]:
    match op:
        case Norm():
            pass
        case Dense():
            yield op.weight
        case Attention():
            for dense in (op.q, op.k, op.v, op.out):
                yield dense.weight
        case FeedForward():
            for part in (op.gate, op.up, op.down):
                if part:
                    yield part.weight
        case Residual():
            for branch in op.branches:
                for inner in branch:
                    yield from _op_weights(inner)
        case _:
            raise Unsupported(f"the op {type(op).__name__}")


class Rotations:
    """Tables of cosine and sine for each kind of rope of a model, as long as the longest text so far."""

    def __init__(self) -> None:
        self._ropes: list[Rope] = []
        self._tables = RotationTables(0, ())

    def index(self, rope: Rope) -> int:
        """The number of a rope's table; ropes that turn alike share one."""
        for i, known in enumerate(self._ropes):
            if known.magnitude == rope.magnitude and np.array_equal(known.frequencies, rope.frequencies):
                return i
        self._ropes.append(rope)
        return len(self._ropes) - 1

    def tables(self, length: int) -> RotationTables:
        """Tables for positions below ``length``. A step keeps those it was given: a longer set takes their place."""
        found = self._tables  # one attribute: another thread may replace it at any time
        if length > found.length or found.n != len(self._ropes):
            found = self._tables = RotationTables(max(256, 1 << (length - 1).bit_length()), self._ropes)
        return found


class RotationTables:
    """One table for each rope, cosines and sines of ``length`` positions, and where native code finds them."""

    def __init__(self, length: int, ropes: Sequence[Rope]) -> None:
        self.length, self.n = length, len(ropes)
        self._arrays = [_table(rope, length) for rope in ropes]
        records = (abi.Rotation(address(cos), address(sin)) for cos, sin in self._arrays)
        self._records = (abi.Rotation * max(self.n, 1))(*records)
        self.address = ctypes.addressof(self._records)


def _table(rope: Rope, length: int) -> tuple[F32, F32]:
    angle: F64 = np.arange(length, dtype=np.float64)[:, None] * rope.frequencies
    return (
        np.ascontiguousarray(np.cos(angle) * rope.magnitude, np.float32),
        np.ascontiguousarray(np.sin(angle) * rope.magnitude, np.float32),
    )


INNER = ("inner 0", "inner 1")  # registers within an attention or a feed-forward: never both at once


class Program:
    """The ops of some blocks, and of the head where they reach it. Register 0 holds what comes in."""

    def __init__(self, store: Store, rotations: Rotations, n_embd: int) -> None:
        self._store, self._rotations, self._n_embd = store, rotations, n_embd
        self._registers: dict[str, int] = {"x": 0}
        self._cols = [n_embd]
        self._x, self._spare = 0, -1
        self._layer = 0
        self._state: KV | None = None  # of the block at hand, until its attention takes it
        self._ops: list[abi.Op] = []
        self._n_embedding = 0  # ops that come before what a step of hidden states begins with

    def embedding(self, embedding: Embedding, rows: int, positions: int | None) -> None:
        """Begin with the rows of tokens and positions, from tables at these addresses."""
        self._emit(abi.TAKE, dst=self._x, weight=rows)
        if embedding.scale != 1.0:
            self._emit(abi.SCALE, dst=self._x, width=self._n_embd, scale=embedding.scale)
        if positions is not None:
            place = self._register("chain 0", self._n_embd)
            self._emit(abi.TAKE, dst=place, flags=abi.BY_POSITION, weight=positions)
            self._emit(abi.ADD_TO, src=place, dst=self._x, width=self._n_embd)
        if embedding.norm:
            self.norm_in_place(embedding.norm)
        self._n_embedding = len(self._ops)

    def blocks(self, blocks: Sequence[Block]) -> None:
        """Append some blocks."""
        for block in blocks:
            self._state = block.state
            for op in block.ops:
                if isinstance(op, Residual):
                    self._residual(op)
                else:
                    self._emit(abi.COPY, src=self._chain((op,), None), dst=self._x, width=self._n_embd)
            if block.state is not None:
                if self._state is not None:
                    raise Unsupported("a state without an attention")
                self._layer += 1

    def rows_out(self) -> None:
        """Give out all rows as they are."""
        self._emit(abi.COPY, src=self._x, dst=abi.OUT, width=self._n_embd)

    def outputs_only(self) -> None:
        """Go on with the output rows alone."""
        chosen = self._register("chosen", self._n_embd)
        self._emit(abi.GATHER, src=self._x, dst=chosen, width=self._n_embd)
        self._x = chosen

    def norm_in_place(self, norm: Norm) -> None:
        """Normalise what there is."""
        self._norm(norm, self._x, 0, self._x, 0, self._n_embd, 1, add=False)

    def linear_out(self, dense: Dense) -> None:
        """Give out one linear of all rows."""
        self._reads(dense.weight, self._n_embd)
        self._linears(self._x, 0, [(dense, abi.OUT, 0, False)])

    def head(self, head: Head) -> None:
        """Logits of what there is."""
        self._reads(head.dense.weight, self._n_embd)
        self._linears(self._x, 0, [(head.dense, abi.OUT, 0, False)])
        if head.scale != 1.0 or head.softcap is not None:
            n = head.dense.weight.n_rows
            self._emit(abi.SCALE, src=self._x, dst=abi.OUT, width=n, scale=head.scale, cap=head.softcap or 0.0)

    def finish(self, n_out_cols: int) -> Compiled:
        """The program as it is handed to native code."""
        return Compiled(self._store, self._ops, self._cols, n_out_cols, self._n_embedding)

    def _register(self, name: str, cols: int) -> int:
        number = self._registers.setdefault(name, len(self._cols))
        if number == len(self._cols):
            self._cols.append(0)
        self._cols[number] = max(self._cols[number], cols)
        return number

    def _emit(self, kind: int, *, src: int = 0, dst: int = 0, flags: int = 0, **values: Any) -> None:
        self._ops.append(abi.Op(kind=kind, flags=flags, src=src, dst=dst, **values))

    def _residual(self, op: Residual) -> None:
        target = self._x
        if len(op.branches) != 1:  # branches read what came in, so the sum needs a place of its own
            if self._spare < 0:
                self._spare = self._register("spare", self._n_embd)
            target = self._spare
            self._emit(abi.COPY, src=self._x, dst=target, width=self._n_embd)
        for branch in op.branches:
            self._chain(branch, target)
        if target != self._x:
            self._x, self._spare = target, self._x

    def _chain(self, ops: Sequence[object], target: int | None) -> int:
        """Ops in order on x; the last adds to ``target``, or leaves its result in the register that is returned."""
        at, cols = self._x, self._n_embd
        for i, op in enumerate(ops):
            last = i == len(ops) - 1
            match op:
                case Norm() | Dense() | Attention() | FeedForward():
                    pass
                case _:
                    raise Unsupported(f"the op {type(op).__name__} inside another")
            n_out = _n_out(op, cols)
            for weight in _inputs(op):
                self._reads(weight, cols)
            if last and n_out != self._n_embd:
                raise Unsupported(f"a chain that ends in {n_out} values, not {self._n_embd}")
            add = last and target is not None
            dst = target if add and target is not None else self._register(f"chain {i % 2}", n_out)
            match op:
                case Norm():
                    self._norm(op, at, 0, dst, 0, cols, 1, add=add)
                case Dense():
                    self._linears(at, 0, [(op, dst, 0, add)])
                case Attention():
                    self._attention(op, at, dst, add)
                case FeedForward():
                    self._feed_forward(op, at, dst, add)
            at, cols = dst, n_out
        if not ops:
            raise Unsupported("an empty branch")
        return at

    @staticmethod
    def _reads(weight: Weight, width: int) -> None:
        if weight.n_cols != width:
            raise Unsupported(f"{weight!r} where {width} values come in")

    def _norm(
        self, norm: Norm, src: int, src_at: int, dst: int, dst_at: int, width: int, count: int, *, add: bool
    ) -> None:
        if norm.kind not in ("rms", "layer"):
            raise Unsupported(f"the norm {norm.kind!r}")
        for vector in (norm.weight, norm.bias):
            if vector is not None and vector.n_cols != width:
                raise Unsupported(f"a norm of {width} values with the vector {vector!r}")
        self._emit(
            abi.NORM, src=src, dst=dst, src_at=src_at, dst_at=dst_at, width=width, count=count, eps=norm.eps,
            flags=(abi.ADD if add else 0) | (abi.LAYER_NORM if norm.kind == "layer" else 0),
            gain=self._store.vector(norm.weight) if norm.weight else None,
            bias=self._store.vector(norm.bias) if norm.bias else None,
        )  # fmt: skip

    def _linears(self, src: int, src_at: int, group: Sequence[tuple[Dense, int, int, bool]]) -> None:
        """Linears that read the same rows, run as one phase."""
        width = group[0][0].weight.n_cols
        flags = 0
        for dense, *_ in group:
            if dense.weight.n_cols != width or len(dense.weight.shape) != 2:
                raise Unsupported(f"{dense.weight!r} where {width} values come in")
            format = self._store[dense.weight].format
            if format != abi.FOREIGN:
                flags |= abi.FOR_FLOAT if format in abi.FLOAT_FORMATS else abi.FOR_Q8
        # Also where nothing is to be prepared: it ends the phase that may still write these rows.
        self._emit(abi.PREPARE, src=src, src_at=src_at, width=width, flags=flags)
        prepared = self._prepare_foreign(src, src_at, [dense.weight for dense, *_ in group])
        for i, (dense, dst, dst_at, add) in enumerate(group):
            if dense.bias is not None and dense.bias.n_cols != dense.weight.n_rows:
                raise Unsupported(f"{dense.weight!r} with the bias {dense.bias!r}")
            bound = self._store[dense.weight]
            values: dict[str, Any] = {"src": src, "src_at": src_at}
            bias = self._store.vector(dense.bias) if dense.bias else None
            if bound.format == abi.FOREIGN:  # it only knows how to write, and only whole rows: the rest comes after
                dst = self._register(f"foreign {i}", dense.weight.n_rows)
                values["count"] = prepared[i]
            else:
                values |= {"dst_at": dst_at, "flags": abi.ADD if add else 0, "bias": bias}
            self._emit(abi.LINEAR, dst=dst, weight=ctypes.addressof(bound), **values)
        for i, (dense, dst, dst_at, add) in enumerate(group):
            if self._store[dense.weight].format == abi.FOREIGN:
                n, bias = dense.weight.n_rows, self._store.vector(dense.bias) if dense.bias else None
                kind, place = abi.ADD_TO if add else abi.COPY, self._register(f"foreign {i}", n)
                self._emit(kind, src=place, dst=dst, dst_at=dst_at, width=n, bias=bias)

    def _prepare_foreign(self, src: int, src_at: int, weights: Sequence[Weight]) -> list[int]:
        """Rows in the forms that foreign linears want, each form once; the place of each weight's form."""
        forms: dict[tuple[int, int], int] = {}
        places = []
        for weight in weights:
            bound = self._store[weight]
            linear = abi.LinearObject.from_address(bound.linear) if bound.format == abi.FOREIGN else None
            if linear is None or not linear.prepare:
                places.append(0)
                continue
            form = (linear.prepare, linear.form)
            if form not in forms:
                if len(forms) == abi.MAX_PREPARED:
                    raise Unsupported(f"{weight!r} beside {len(forms)} forms of prepared rows")
                forms[form] = len(forms)
                values = {"src_at": src_at, "width": weight.n_cols, "count": forms[form]}
                self._emit(abi.PREPARE_FOREIGN, src=src, weight=ctypes.addressof(bound), **values)
            places.append(forms[form])
        return places

    def _attention(self, op: Attention, src: int, dst: int, add: bool) -> None:
        n_q, n_k, n_v = op.q.weight.n_rows, op.k.weight.n_rows, op.v.weight.n_rows
        if op.n_head_kv < 1 or op.n_head % op.n_head_kv or n_q % op.n_head or n_k % op.n_head_kv or n_v % op.n_head_kv:
            raise Unsupported(f"{op.n_head} heads over {op.n_head_kv}")
        k_dim, v_dim = n_q // op.n_head, n_v // op.n_head_kv
        if k_dim * op.n_head_kv != n_k or max(k_dim, v_dim) > abi.MAX_HEAD:
            raise Unsupported(f"heads of {k_dim} and {v_dim} values")
        state, self._state = self._state, None
        if state is None or (state.n_head_kv, state.k_dim, state.v_dim) != (op.n_head_kv, k_dim, v_dim):
            raise Unsupported(f"an attention of {op.n_head_kv} heads of {k_dim} and {v_dim} values over {state}")
        if op.out.weight.n_cols != op.n_head * v_dim:
            raise Unsupported(f"{op.out.weight!r} after heads of {v_dim} values")
        if (op.window is not None and op.window < 1) or op.softcap == 0:
            raise Unsupported(f"a window of {op.window} or a cap of {op.softcap}")
        qkv = self._register(INNER[0], n_q + n_k + n_v)
        self._linears(src, 0, [(op.q, qkv, 0, False), (op.k, qkv, n_q, False), (op.v, qkv, n_q + n_k, False)])
        parts = ((op.q_norm, 0, op.n_head), (op.k_norm, n_q, op.n_head_kv))
        for norm, at, count in parts:
            if norm:
                self._norm(norm, qkv, at, qkv, at, k_dim, count, add=False)
        if op.rope:
            if op.rope.n_rot > k_dim or op.rope.style not in ("norm", "neox"):
                raise Unsupported(f"a rope of {op.rope.n_rot} values, {op.rope.style}")
            for _, at, count in parts:
                self._emit(
                    abi.ROPE, dst=qkv, dst_at=at, width=k_dim, count=count, n_rot=op.rope.n_rot,
                    rope=self._rotations.index(op.rope), flags=abi.NEOX if op.rope.style == "neox" else 0,
                )  # fmt: skip
        heads = {"n_head": op.n_head, "n_head_kv": op.n_head_kv, "k_dim": k_dim, "v_dim": v_dim, "layer": self._layer}
        self._emit(abi.STORE, src=qkv, src2=qkv, src_at=n_q, src2_at=n_q + n_k, **heads)
        mixed = self._register(INNER[1], op.n_head * v_dim)
        self._emit(
            abi.ATTEND, src=qkv, dst=mixed, window=op.window or 0, scale=op.scale, cap=op.softcap or 0.0, **heads
        )
        self._linears(mixed, 0, [(op.out, dst, 0, add)])

    def _feed_forward(self, op: FeedForward, src: int, dst: int, add: bool) -> None:
        if op.activation not in abi.ACTIVATIONS:
            raise Unsupported(f"the activation {op.activation!r}")
        n = op.up.weight.n_rows
        if op.down.weight.n_cols != n or (op.gate and op.gate.weight.n_rows != n):
            raise Unsupported(f"{op.down.weight!r} after {op.up.weight!r}")
        up = self._register(INNER[0], n)
        values = {"src": up, "dst": up, "width": n, "activation": abi.ACTIVATIONS[op.activation]}
        if op.gate:
            gate = self._register(INNER[1], n)
            self._linears(src, 0, [(op.gate, gate, 0, False), (op.up, up, 0, False)])
            self._emit(abi.ACT, **(values | {"src": gate, "src2": up, "flags": abi.GATED}))
        else:
            self._linears(src, 0, [(op.up, up, 0, False)])
            self._emit(abi.ACT, **values)
        self._linears(up, 0, [(op.down, dst, 0, add)])


def _inputs(op: object) -> tuple[Weight, ...]:
    """The matrices that read what comes into an op."""
    match op:
        case Dense():
            return (op.weight,)
        case Attention():
            return (op.q.weight, op.k.weight, op.v.weight)
        case FeedForward():
            return (op.up.weight, op.gate.weight) if op.gate else (op.up.weight,)
        case _:
            return ()


def _n_out(op: object, n_in: int) -> int:
    match op:
        case Dense():
            return op.weight.n_rows
        case Attention():
            return op.out.weight.n_rows
        case FeedForward():
            return op.down.weight.n_rows
        case _:
            return n_in


class Compiled:
    """A program in native memory, with everything that it points to.

    Attributes:
        address: of the whole program.
        in_place: what of it lies in files.
        after_embedding: of the program for hidden states: the same ops, less those of the embedding.
    """

    def __init__(
        self, store: Store, ops: Sequence[abi.Op], cols: Sequence[int], n_out_cols: int, n_embedding: int
    ) -> None:
        self._store, self.in_place = store, store.in_place
        self._ops = (abi.Op * len(ops))(*ops)
        self._cols = np.asarray(cols, np.uint32)
        self.n_out_cols = n_out_cols
        self._programs = [
            abi.Program(
                abi.PROGRAM, len(ops) - first, len(cols), n_out_cols,
                ctypes.addressof(self._ops) + first * ctypes.sizeof(abi.Op), address(self._cols),
            )
            for first in (0, n_embedding)
        ]  # fmt: skip
        self.address, self.after_embedding = map(ctypes.addressof, self._programs)
