"""The kit for backends lets the right ones pass and names what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, NumpyBackend
from sis_core.block import Block, Network
from sis_core.pages import PageTable
from sis_core.quant import Weight
from sis_core.reference import PagedCache, ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.step import Batch, Cache, Forward, Layer, Linear, Output, Plan
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
    check_backend(ByLinear(), formats=check_formats())
    check_backend(ByLayer(), formats=check_formats())


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


@frozen(eq=False)
class _SpoiledLayer:
    inner: ReferenceLayer
    spoil: Callable[[Plan], Plan]

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> Any:
        return self.inner.new_state(kv_type, n_pages, page_size)

    def __call__(self, hidden: F32, plan: Plan, state: Any) -> F32:
        return self.inner(hidden, self.spoil(plan), state)


def spoiled_plan(spoil: Callable[[Plan], Plan]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def layer(self, block: Block, options: BackendOptions) -> Layer:
            return _SpoiledLayer(ReferenceLayer.of(block, ReferenceLinear), spoil)

    return Spoiled()


class _SpoiledForward:
    """A sequential forward whose step or cache is spoiled."""

    def __init__(self, network: Network, layers: range) -> None:
        bound = tuple(ReferenceLayer.of(network.blocks[i], ReferenceLinear) for i in layers)
        head = ReferenceLinear(network.head.dense.weight)
        self.inner = SequentialForward.of(network, layers, bound, ("spoiled",) * len(layers), head)
        self.layers, self.grains = self.inner.layers, self.inner.grains

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self.inner.new_cache(kv_type, max_tokens)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return self.inner.cache_nbytes(kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return self.inner.step(batch, cache)


def forward_backend(kind: type[_SpoiledForward]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
            return kind(network, layers)

    return Spoiled()


class ForgetsOrder(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        output = self.inner.step(batch, cache)
        order = np.argsort(batch.outputs)
        return Output(output.values[order])


class GivesHiddenBeforeTheNorm(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        output = self.inner.step(batch, cache)
        return output if batch.want == "logits" else Output(output.values * np.float32(1.5))


class NotAllOrNothing(_SpoiledForward):
    """Extends the cache before it looks at the tokens."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        assert isinstance(cache, PagedCache)
        assert batch.tokens is not None
        if batch.tokens.min() < 0 or batch.tokens.max() >= self.inner.network.n_vocab:
            with cache.table.reserve(batch):
                pass
        return self.inner.step(batch, cache)


class TakesAnyToken(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        assert batch.tokens is not None
        return self.inner.step(evolve(batch, tokens=batch.tokens % self.inner.network.n_vocab), cache)


class RaisesForeignErrors(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        try:
            return self.inner.step(batch, cache)
        except Exception as error:
            raise IndexError("somewhere") from error


class _CopyingCache(PagedCache):
    """Pages are copied on fork, as by somebody who kept the shape of paging and not its point."""

    def fork(self, source: int, target: int, n: int) -> None:
        if not n:
            return
        old = self.table.pages(source)
        fresh = self.table.replace(target, n)
        for state in self.states:
            if state:
                for a, b in zip(old, fresh, strict=False):
                    state.copy_page(a, b)


class CopiesOnFork(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        plain = self.inner.new_cache(kv_type, max_tokens)
        return _CopyingCache(plain.table, plain.states, plain.kv_type, plain.owner)


class _LeakyTable(PageTable):
    def drop(self, sequence: int) -> None:
        self._sequences.pop(sequence, None)


class LeaksPages(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        plain = self.inner.new_cache(kv_type, max_tokens)
        return PagedCache(_LeakyTable(plain.table.n_pages), plain.states, plain.kv_type, plain.owner)


class _Sharing(PageTable):
    """Forgets copy on write."""

    def _extend(self, sequence: int, rows: list[int], batch: Batch, copies: list[tuple[int, int]]) -> Any:
        uses, self._uses = self._uses, [min(n, 1) for n in self._uses]
        try:
            return super()._extend(sequence, rows, batch, copies)
        finally:
            self._uses = [max(a, b) for a, b in zip(uses, self._uses, strict=True)]


class ForgetsCopyOnWrite(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        plain = self.inner.new_cache(kv_type, max_tokens)
        return PagedCache(_Sharing(plain.table.n_pages), plain.states, plain.kv_type, plain.owner)


class Nothing(Backend):
    name = "nothing"


counter = iter(range(1_000_000))

WRONG: list[tuple[str, Backend, str]] = [
    ("transposes", spoiled_linear(lambda y, w: y[:, ::-1].copy()), "all at once: row .* is off by"),
    ("double precision", spoiled_linear(lambda y, w: y.astype(np.float64)), "logits are float64, not float32"),
    ("NaN", spoiled_linear(lambda y, w: y * np.float32("nan")), "all at once: not finite"),
    ("last column", spoiled_linear(lambda y, w: y * (np.arange(y.shape[1]) < y.shape[1] - 1)), "is off by|float64"),
    ("not deterministic", spoiled_linear(lambda y, w: y * np.float32(1 + 1e-6 * next(counter))),
     "other|different numbers|is off by"),
    ("ignores positions", spoiled_plan(lambda p: evolve(p, positions=np.zeros_like(p.positions))), "is off by"),
    ("positions of the step",
     spoiled_plan(lambda p: evolve(p, positions=np.arange(len(p.positions), dtype=np.int32))), "token by token: row"),
    ("forgets output order", forward_backend(ForgetsOrder), "hidden states of three rows"),
    ("hidden before the norm", forward_backend(GivesHiddenBeforeTheNorm), "hidden states of three rows"),
    ("not all or nothing", forward_backend(NotAllOrNothing),
     "a token outside the vocabulary left 41 tokens in the cache, not 40"),
    ("takes any token", forward_backend(TakesAnyToken), "a token outside the vocabulary was not refused"),
    ("foreign errors", forward_backend(RaisesForeignErrors), "another model's cache raised IndexError"),
    ("copies on fork", forward_backend(CopiesOnFork), "fork copied the cache"),
    ("leaks pages", forward_backend(LeaksPages), "bytes are in use after every sequence was dropped"),
    ("no copy on write", forward_backend(ForgetsCopyOnWrite), "the source after its fork went another way"),
    ("binds nothing", Nothing(), "answered None to every network"),
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
