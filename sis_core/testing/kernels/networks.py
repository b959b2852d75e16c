"""Whole networks, against the reference and against themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.native import NativeBackend, compiled, liveness, passing
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.block import KV, Attention, Block, Dense, Network, Residual
from sis_core.errors import BackendError
from sis_core.quant import BF16Format, F16Format, F32Format, Weight
from sis_core.step import Batch, Run
from sis_core.testing.backend import check_backend
from sis_core.testing.kernels.guards import GUARD, between_guards
from sis_core.testing.kernels.shared import Shared
from sis_core.testing.kernels.weights import format_of
from sis_core.testing.networks import VARIANTS, Variant, random_network, with_format


def check_passing(backend: NativeBackend, variants: Sequence[Variant], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that only the next op reads need not be written to registers, of few rows or of many at once."""
    marked = passing.mark
    each = {(variant.activation, variant.gated): variant for variant in variants}
    for variant, format, pack in itertools.product(each.values(), (F16Format(), format_of("Q8_0")), (True, False)):
        network = random_network(with_format(variant, format))
        found = []
        for mark in (marked, lambda ops, touched: None):
            monkeypatch.setattr(passing, "mark", mark)
            forward = bind(network, [backend], BackendOptions(n_threads=2, pack=pack))
            cache = forward.new_cache("f16", 256)
            found.append([
                forward.step(Batch.of(list(range(n)), sequence=i, outputs=range(n)), cache).values
                for i, n in enumerate((70, 5, 67))
            ])  # fmt: skip
        for some, others in zip(*found, strict=True):
            assert np.array_equal(some, others), (variant.name, format.name, pack)


class Networks(Shared):
    """A step at a time."""

    def test_nothing_outside_the_result_is_written(
        self, backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Results and workspaces lie between guards full of NaN, and hold nothing but NaN before."""
        guards = between_guards(monkeypatch)
        for variant, format in itertools.product(self.variants, (F16Format(), format_of("Q8_0"))):
            network = random_network(with_format(variant, format))
            forward = bind(network, [backend], BackendOptions(n_threads=2))
            cache = forward.new_cache("f16", 64)
            for start, stop in ((0, 13), (13, 14), (14, 33)):
                batch = Batch.of(list(range(start, stop)), position=start, outputs=[0, stop - start - 1])
                assert np.isfinite(forward.step(batch, cache).values).all(), variant.name
        assert len(guards) > 8 * len(self.variants)
        for whole, n_bytes in guards:
            assert (whole[:GUARD] == 0xFF).all()
            assert (whole[GUARD + n_bytes :] == 0xFF).all()

    def test_hidden_states_go_in_after_the_embedding(self, backend: NativeBackend) -> None:
        ids = [3, 1, 4, 1, 5]
        for variant in self.variants:
            network = random_network(variant)
            forward = bind(network, [backend], BackendOptions())
            wanted = forward.step(Batch.of(ids, outputs=range(5)), forward.new_cache("f32", 32)).values
            given = Batch(None, (Run(0, 0, 5),), range(5), hidden=BoundEmbedding(network)(Batch.of(ids)))
            found = forward.step(given, forward.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3, err_msg=variant.name)

    def test_every_network(self, backend: NativeBackend) -> None:
        check_backend(backend, formats=[F32Format()], kv_types=self.kv_types)

    def test_every_network_in_bf16(self, backend: NativeBackend) -> None:
        tolerance = 6e-2 if backend.library().isa_name in self.bfloats else 1e-4
        check_backend(backend, formats=[BF16Format()], tolerance=tolerance, kv_types=self.kv_types)

    def test_every_network_in_f16(self, backend: NativeBackend) -> None:
        tolerance = 8e-3 if backend.library().isa_name in self.halves else 1e-4
        check_backend(backend, formats=[F16Format()], tolerance=tolerance, kv_types=self.kv_types)

    def test_every_network_in_q8_0(self, backend: NativeBackend) -> None:
        # The tolerance is for activations in 8 bits, in a network whose attention is sharper than any trained one's.
        check_backend(backend, formats=[format_of("Q8_0")], tolerance=0.12, kv_types=self.kv_types)

    def test_results_do_not_depend_on_threads(self, backend: NativeBackend) -> None:
        for variant in self.variants:
            network = random_network(with_format(variant, format_of("Q8_0")))
            found = []
            for n_threads in (1, 2, 3, 8):
                forward = bind(network, [backend], BackendOptions(n_threads=n_threads))
                cache = forward.new_cache("f16", 128)
                forward.step(Batch.of(list(range(60)), outputs=[]), cache)
                forward.step(Batch.of(list(range(7)), sequence=1, outputs=[]), cache)
                batch = Batch([5, 6, 7, 8], (Run(0, 60, 2), Run(1, 7, 1), Run(2, 0, 1)), range(4))
                found.append(forward.step(batch, cache).values)
            assert all(np.array_equal(found[0], other) for other in found[1:]), variant.name

    def test_results_do_not_depend_on_company(self, backend: NativeBackend) -> None:
        """Alone, in a chunk, and among other sequences, a row gives the same bits."""
        for variant in self.variants:
            network = random_network(with_format(variant, format_of("Q8_0")))
            forward = bind(network, [backend], BackendOptions(batch_invariant=True))
            ids = np.random.default_rng(6).integers(0, network.n_vocab, 150)
            whole = forward.step(Batch.of(ids, outputs=range(150)), forward.new_cache("f16", 192)).values
            cache = forward.new_cache("f16", 384)
            forward.step(Batch.of(ids[:9], sequence=1, outputs=[]), cache)
            first = forward.step(Batch.of(ids[:137], outputs=range(137)), cache).values
            assert np.array_equal(first, whole[:137]), variant.name
            for i in range(137, 150):
                batch = Batch([3, ids[i]], (Run(1, i - 128, 1), Run(0, i, 1)), [1])
                assert np.array_equal(forward.step(batch, cache).values[0], whole[i]), (variant.name, i)

    def test_what_passes_from_op_to_op_changes_no_bits(
        self, backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check_passing(backend, self.variants, monkeypatch)

    def test_what_shares_memory_changes_no_bits(self, backend: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        """Prompts and single tokens give what they give where everything lies apart."""
        shared = liveness.conflicts
        for variant in self.variants:
            network = random_network(with_format(variant, format_of("Q8_0")))
            found = []
            for conflicts in (shared, lambda *program: np.ones_like(shared(*program))):
                monkeypatch.setattr(compiled, "conflicts", conflicts)
                forward = bind(network, [backend], BackendOptions(n_threads=2))
                cache = forward.new_cache("f16", 192)
                batches = [
                    Batch.of(list(range(n)), position=start, outputs=range(0, n, 7))
                    for start, n in ((0, 70), (70, 1), (71, 69))
                ]
                found.append([forward.step(batch, cache).values for batch in batches])
            for some, others in zip(*found, strict=True):
                assert np.array_equal(some, others), variant.name

    def test_memory_and_in_place(self, backend: NativeBackend) -> None:
        network = random_network(with_format(VARIANTS[0], F16Format()))
        packed = backend.memory(network, range(2), BackendOptions())
        matrices = {w.name: w.nbytes for w in network.weights() if len(w.shape) == 2}
        assert sum(matrices.values()) <= packed <= 1.1 * sum(matrices.values())
        assert backend.memory(network, range(2), BackendOptions(pack=False)) == 0
        batch = Batch.of(list(range(9)))
        found = []
        for pack in (True, False):
            forward = bind(network, [backend], BackendOptions(pack=pack))
            found.append(forward.step(batch, forward.new_cache("f16", 32)).values)
        assert np.array_equal(found[0], found[1])

    def test_other_cache_types_are_not_ours(self, backend: NativeBackend) -> None:
        assert backend.forward(random_network(VARIANTS[0]), range(2), BackendOptions(kv_type="q5_1")) is None

    def test_networks_that_contradict_themselves_are_not_ours(self, backend: NativeBackend) -> None:
        """Sizes that do not fit would be writes outside of memory: each is refused before an address is given away."""
        good = random_network(VARIANTS[0])
        block = good.blocks[0]

        def with_attention(**changes: Any) -> Network:
            def changed(op: Any) -> Any:
                return evolve(op, **changes) if isinstance(op, Attention) else op

            ops = tuple(
                Residual(tuple(tuple(changed(inner) for inner in branch) for branch in op.branches))
                if isinstance(op, Residual)
                else op
                for op in block.ops
            )
            return evolve(good, blocks=(evolve(block, ops=ops), good.blocks[1]))

        def matrix(n_rows: int, n_cols: int) -> Dense:
            return Dense(Weight.from_array("m", np.zeros((n_rows, n_cols), np.float32)))

        n = good.n_embd
        wrong: list[Network] = [
            evolve(good, n_vocab=good.n_vocab + 1),
            evolve(good, head=evolve(good.head, dense=matrix(good.n_vocab - 1, n))),
            evolve(good, head=evolve(good.head, dense=matrix(good.n_vocab, n + 32))),
            evolve(good, blocks=(evolve(block, state=None), good.blocks[1])),
            evolve(good, blocks=(evolve(block, state=KV(1, 16, 16)), good.blocks[1])),
            evolve(good, blocks=(Block((), KV(2, 16, 16)), good.blocks[1])),
            evolve(good, blocks=(Block((matrix(n, 2 * n),)), good.blocks[1])),
            evolve(good, blocks=(Block((matrix(2 * n, n),)), good.blocks[1])),
            with_attention(q=matrix(n, 2 * n)),
            with_attention(out=matrix(n, 2 * n)),
            with_attention(k=matrix(n, n)),
            with_attention(n_head_kv=3),
            with_attention(v=matrix(1040, n)),
            with_attention(softcap=0.0),
        ]
        for i, network in enumerate(wrong):
            assert backend.forward(network, range(2), BackendOptions()) is None, i
        for network in wrong[3:]:
            assert backend.layer(network.blocks[0], BackendOptions()) is None
        layer = backend.layer(block, BackendOptions())
        assert layer is not None
        with pytest.raises(BackendError, match="pages of 24 tokens do not fit"):
            layer.new_state("f16", 4, 24)

    def test_a_cache_of_another_model_is_refused(self, backend: NativeBackend) -> None:
        forwards = [bind(random_network(v), [backend], BackendOptions()) for v in (VARIANTS[0], VARIANTS[1])]
        cache = forwards[1].new_cache("f16", 32)
        with pytest.raises(BackendError, match="made by another"):
            forwards[0].step(Batch.of([1]), cache)
        other = bind(random_network(VARIANTS[0]), [], BackendOptions())
        with pytest.raises(BackendError, match="made by another"):
            forwards[0].step(Batch.of([1]), other.new_cache("f16", 32))
