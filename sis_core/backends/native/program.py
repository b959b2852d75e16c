"""Blocks as a list of operations for `sis_run`: every record becomes a few of them, on numbered registers.

How an op is lowered is one file of ``ops`` for each record.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sis_core.arrays import F32
from sis_core.backends.native import abi, ops
from sis_core.backends.native.border import Structure
from sis_core.backends.native.compiled import Compiled
from sis_core.backends.native.places import Places
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.unsupported import Unsupported
from sis_core.backends.native.weights import Store
from sis_core.backends.op_files import by_record
from sis_core.block import Block, Dense, Embedding, Head, Network, Norm, Op, Residual, State, find
from sis_core.cache.paged import Layout
from sis_core.experts import Stack
from sis_core.quant import Weight
from sis_core.transform import Hadamard, PerColumn


class Source(NamedTuple):
    """A register, and how many of its columns are filled."""

    register: int
    cols: int


class Target(NamedTuple):
    """A register that an op writes ``cols`` columns of, or adds to."""

    register: int
    cols: int
    add: bool


class Program:
    """The ops of some blocks, and of the head where they reach it. Register 0 holds what comes in."""

    def __init__(self, store: Store, rotations: Rotations, n_embd: int) -> None:
        self._store, self.rotations, self.n_embd = store, rotations, n_embd
        self._registers: dict[str, int] = {"x": 0}
        self._cols = [n_embd]
        self.x, self._spare = 0, -1
        self._places = Places()  # of prepared rows
        self._watched: list[int] = []  # query heads of each attention over the whole text
        self.layer = self.table = 0  # where the state of the block at hand lies
        self._state: State | None = None  # that state, until an op takes it
        self._ops: list[abi.Op] = []
        self._kept: list[object] = []  # records that ops point to
        self._n_embedding = 0  # ops that come before what a step of hidden states begins with

    def embedding(self, embedding: Embedding, rows: int, positions: int | None) -> None:
        """Begin with the rows of tokens and positions, from tables at these addresses."""
        self.emit(abi.TAKE, dst=self.x, weight=rows)
        if embedding.scale != 1.0:
            self.emit(abi.SCALE, dst=self.x, width=self.n_embd, scale=embedding.scale)
        if positions is not None:
            place = self.register("chain 0", self.n_embd)
            self.emit(abi.TAKE, dst=place, flags=abi.BY_POSITION, weight=positions)
            self.emit(abi.ADD_TO, src=place, dst=self.x, width=self.n_embd)
        if embedding.norm:
            self.norm_in_place(embedding.norm)
        self._n_embedding = len(self._ops)

    def network(self, network: Network, layout: Layout, tables: tuple[int, int | None] | None, *, logits: bool) -> int:
        """The layers of ``layout``, from the tables of the embedding where there are some, and what comes after.

        How many columns that has is returned.
        """
        if tables:
            self.embedding(network.embedding, *tables)
        self.blocks([network.blocks[i] for i in layout.layers], layout)
        self.outputs_only()
        if layout.layers.stop == network.n_layer and network.head.norm:
            self.norm_in_place(network.head.norm)
        if not logits:
            self.rows_out()
            return network.n_embd
        self.head(network.head)
        return network.n_vocab

    def blocks(self, blocks: Sequence[Block], layout: Layout) -> None:
        """Append some blocks, those of ``layout``."""
        for at, block in enumerate(blocks):
            self.layer, self.table = layout.storage_of[at], layout.table_of[at]
            self._state = layout.states[self.layer]
            for op in block.ops:
                if isinstance(op, Residual):
                    self.residual(op)
                else:
                    self.emit(abi.COPY, src=self.chain((op,), None), dst=self.x, width=self.n_embd)
            if self._state is not None:
                raise Unsupported("a state that no op of its block knows")

    def block(self, block: Block) -> None:
        """Append one block on its own."""
        if block.reads_state_of is not None:
            raise Unsupported("the state of another layer in a layer on its own")
        self.blocks([block], Layout([block], range(1)))

    def rows_out(self) -> None:
        """Give out all rows as they are."""
        self.emit(abi.COPY, src=self.x, dst=abi.OUT, width=self.n_embd)

    def outputs_only(self) -> None:
        """Go on with the output rows alone."""
        chosen = self.register("chain 0", self.n_embd)  # nothing but x is needed any more
        self.emit(abi.GATHER, src=self.x, dst=chosen, width=self.n_embd)
        self.x = chosen

    def norm_in_place(self, norm: Norm) -> None:
        """Normalise what there is."""
        self.norm(norm, self.x, 0, self.x, 0, self.n_embd, 1, add=False)

    def linear_out(self, dense: Dense) -> None:
        """Give out one linear of all rows."""
        self._reads(dense.weight, self.n_embd)
        self.linears(self.x, 0, [(dense, abi.OUT, 0, False)])

    def head(self, head: Head) -> None:
        """Logits of what there is."""
        self._reads(head.dense.weight, self.n_embd)
        self.linears(self.x, 0, [(head.dense, abi.OUT, 0, False)])
        if head.scale != 1.0 or head.softcap is not None:
            n = head.dense.weight.n_rows
            self.emit(abi.SCALE, src=self.x, dst=abi.OUT, width=n, scale=head.scale, cap=head.softcap or 0.0)

    def residual(self, op: Residual) -> None:
        """Add what each branch makes of x to x."""
        target = self.x
        if len(op.branches) != 1:  # branches read what came in, so the sum needs a place of its own
            if self._spare < 0:
                self._spare = self.register("spare", self.n_embd)
            target = self._spare
            self.emit(abi.COPY, src=self.x, dst=target, width=self.n_embd)
        for branch in op.branches:
            if op.scale == 1.0:
                self.chain(branch, target)
                continue
            result = self.chain(branch, None)
            self.emit(abi.SCALE, dst=result, width=self.n_embd, scale=op.scale)
            self.emit(abi.ADD_TO, src=result, dst=target, width=self.n_embd)
        if target != self.x:
            self.x, self._spare = target, self.x

    def chain(self, ops: Sequence[Op], target: int | None) -> int:
        """Ops in order on x; the last adds to ``target``, or leaves its result in the register that is returned."""
        at, cols = self.x, self.n_embd
        for i, op in enumerate(ops):
            last = i == len(ops) - 1
            lower = LOWERINGS.get(type(op))
            if lower is None:
                raise Unsupported(f"the op {type(op).__name__} inside another")
            n_out = op.n_out(cols)
            for weight in op.reads():
                self._reads(weight, cols)
            if last and n_out != self.n_embd:
                raise Unsupported(f"a chain that ends in {n_out} values, not {self.n_embd}")
            add = last and target is not None
            dst = target if add and target is not None else self.register(f"chain {i % 2}", n_out)
            lower(self, op, Source(at, cols), Target(dst, n_out, add))
            at, cols = dst, n_out
        if not ops:
            raise Unsupported("an empty branch")
        return at

    def finish(self, n_out_cols: int) -> Compiled:
        """The program as it is handed to native code, once its weights are bound."""
        return Compiled(self._store, self._ops, self._cols, n_out_cols, self._n_embedding, self._watched, self._kept)

    def register(self, name: str, cols: int) -> int:
        """The number of a register by name, at least ``cols`` wide."""
        number = self._registers.setdefault(name, len(self._cols))
        if number == len(self._cols):
            self._cols.append(0)
        self._cols[number] = max(self._cols[number], cols)
        return number

    def keep(self, record: Structure) -> int:
        """The address of a record that lives as long as the program."""
        self._kept.append(record)
        return ctypes.addressof(record)

    def vector(self, weight: Weight | None) -> int | None:
        """The address of a vector in float32, or none."""
        return self._store.vector(weight) if weight else None

    def floats(self, values: F32) -> int:
        """The address of numbers that come with an op."""
        return self._store.floats(values)

    def matrix(self, weight: Weight) -> int:
        """The address of a bound matrix, or stack of matrices."""
        return ctypes.addressof(self._store[weight])

    def watched(self, n_head: int) -> int:
        """What `abi.Op.watched` is of an attention over the whole text."""
        self._watched.append(n_head)
        return 1 + sum(self._watched[:-1])

    def emit(self, kind: int, *, src: int = 0, dst: int = 0, flags: int = 0, **values: Any) -> None:
        """Append one operation of `sis_run`."""
        self._ops.append(abi.Op(kind=kind, flags=flags, src=src, dst=dst, **values))

    @staticmethod
    def _reads(weight: Weight, width: int) -> None:
        if weight.n_cols != width:
            raise Unsupported(f"{weight!r} where {width} values come in")

    def norm(
        self, norm: Norm, src: int, src_at: int, dst: int, dst_at: int, width: int, count: int, *, add: bool
    ) -> None:
        """Normalise ``count`` pieces of ``width`` values of each row."""
        if norm.kind not in ("rms", "layer") or norm.pieces < 1 or width % norm.pieces or (count > 1 < norm.pieces):
            raise Unsupported(f"the norm {norm.kind!r}, of {norm.pieces} pieces, {count} times")
        for vector in (norm.weight, norm.bias):
            if vector is not None and vector.n_cols != width:
                raise Unsupported(f"a norm of {width} values with the vector {vector!r}")
        gain, bias = self.vector(norm.weight), self.vector(norm.bias)
        piece = width // norm.pieces
        for at in range(0, width, piece):
            self.emit(
                abi.NORM, src=src, dst=dst, src_at=src_at + at, dst_at=dst_at + at, width=piece, count=count,
                eps=norm.eps, flags=(abi.ADD if add else 0) | (abi.LAYER_NORM if norm.kind == "layer" else 0),
                gain=gain and gain + 4 * at, bias=bias and bias + 4 * at,
            )  # fmt: skip

    def take_state(self) -> State | None:
        """What the block at hand keeps, for the one op that uses it; None when there is none, or it was taken."""
        state, self._state = self._state, None
        return state

    def linears(self, src: int, src_at: int, group: Sequence[tuple[Dense, int, int, bool]]) -> None:
        """Linears that read the same rows; those that read them in one form, as their transform says, are one phase."""
        forms: dict[tuple[object, ...], list[tuple[Dense, int, int, bool]]] = {}
        for linear in group:
            forms.setdefault(form_of(linear[0].weight) if self._store.declared(linear[0].weight) else (), []).append(
                linear
            )
        for form, some in forms.items():
            if form:
                place = self.register("transformed", some[0][0].weight.n_cols)
                self._transform(src, src_at, some[0][0].weight, place)
                self._phase(place, 0, some)
            else:
                self._phase(src, src_at, some)

    def _transform(self, src: int, src_at: int, weight: Weight, dst: int) -> None:
        """Rows as ``weight`` reads them."""
        transform, width = weight.transform, weight.n_cols
        if isinstance(transform, Hadamard):
            self.emit(abi.HADAMARD, src=src, src_at=src_at, dst=dst, width=width, count=transform.size)
        elif isinstance(transform, PerColumn):
            gain = self._store.floats(weight.side[transform.side].values)
            self.emit(abi.MULTIPLY, src=src, src_at=src_at, dst=dst, width=width, gain=gain)
        else:
            raise Unsupported(f"{weight!r} under {transform!r}")

    def form(self, weight: Weight) -> int:
        """The flag of the form in which a linear reads its rows; 0 where that is a stranger's business."""
        format = self._store[weight].format
        if format == abi.FOREIGN:
            return 0
        return abi.FOR_FLOAT if format in abi.FLOAT_FORMATS else abi.FOR_Q8

    def _phase(self, src: int, src_at: int, group: Sequence[tuple[Dense, int, int, bool]]) -> None:
        """Linears that read the same rows in the same form."""
        width = group[0][0].weight.n_cols
        flags = 0
        for dense, *_ in group:
            if dense.weight.n_cols != width or len(dense.weight.shape) != 2:
                raise Unsupported(f"{dense.weight!r} where {width} values come in")
            flags |= self.form(dense.weight)
        # Also where nothing is to be prepared: it ends the phase that may still write these rows.
        place = self._places.take(width)
        self.emit(abi.PREPARE, src=src, src_at=src_at, width=width, flags=flags, count=place)
        prepared = self._prepare_foreign(src, src_at, [dense.weight for dense, *_ in group])
        for i, (dense, dst, dst_at, add) in enumerate(group):
            if dense.bias is not None and dense.bias.n_cols != dense.weight.n_rows:
                raise Unsupported(f"{dense.weight!r} with the bias {dense.bias!r}")
            bound = self._store[dense.weight]
            values: dict[str, Any] = {"src": src, "src_at": src_at, "count": place}
            bias = self._store.vector(dense.bias) if dense.bias else None
            if bound.format == abi.FOREIGN:  # it only knows how to write, and only whole rows: the rest comes after
                dst = self.register(f"foreign {i}", dense.weight.n_rows)
                values["count"] = prepared[i]
            else:
                values |= {"dst_at": dst_at, "flags": abi.ADD if add else 0, "bias": bias}
            self.emit(abi.LINEAR, dst=dst, weight=ctypes.addressof(bound), **values)
        for i, (dense, dst, dst_at, add) in enumerate(group):
            if self._store[dense.weight].format == abi.FOREIGN:
                n, bias = dense.weight.n_rows, self._store.vector(dense.bias) if dense.bias else None
                kind, place = abi.ADD_TO if add else abi.COPY, self.register(f"foreign {i}", n)
                self.emit(kind, src=place, dst=dst, dst_at=dst_at, width=n, bias=bias)

    def _prepare_foreign(self, src: int, src_at: int, weights: Sequence[Weight]) -> list[int]:
        """Rows in the forms that foreign linears want, each form once; the place of each weight's form."""
        forms: dict[tuple[int, int], int] = {}
        places = []
        for weight in weights:
            bound = self._store[weight]
            linear = abi.LinearObject.from_address(bound.linear) if bound.linear else None
            if linear is None or not linear.prepare:
                places.append(0)
                continue
            form = (linear.prepare, linear.form)
            if form not in forms:
                if len(forms) == abi.MAX_PREPARED:
                    raise Unsupported(f"{weight!r} beside {len(forms)} forms of prepared rows")
                forms[form] = len(forms)
                values = {"src_at": src_at, "width": weight.n_cols, "count": forms[form]}
                self.emit(abi.PREPARE_FOREIGN, src=src, weight=ctypes.addressof(bound), **values)
            places.append(forms[form])
        return places


LOWERINGS = by_record(ops, "lower")


def form_of(weight: Weight) -> tuple[object, ...]:
    """What makes transformed rows the same: the transform, and what it reads; nothing where there is none."""
    transform = weight.transform
    if transform is None:
        return ()
    side = weight.side[transform.side].values.tobytes() if isinstance(transform, PerColumn) else b""
    return (id(transform), side)


def dense_weights(blocks: Sequence[Block], head: Head | None) -> Iterator[Weight]:
    """Every matrix that will be multiplied, in order of use; Unsupported for a record that is not known."""
    for block in blocks:
        for op in block.flat():
            if type(op) not in LOWERINGS:
                raise Unsupported(f"the op {type(op).__name__}")
            first = op.reads()
            yield from first
            inner = [part.weight for part in find(op, object) if isinstance(part, Dense | Stack)]
            yield from (weight for weight in inner if not any(weight is other for other in first))
    if head:
        yield head.dense.weight
