"""`check_backend`: a backend against the numpy reference on whole models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, bind
from sis_core.block import Network
from sis_core.errors import SisError
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat
from sis_core.step import Batch, Cache, Forward
from sis_core.testing.networks import N_VOCAB, VARIANTS, random_network, with_format

CACHE = 320
FORMATS: tuple[QuantFormat, ...] = (F32Format(), F16Format(), BF16Format())


def check_backend(
    backend: Backend,
    *,
    formats: Sequence[QuantFormat] = FORMATS,
    tolerance: float = 1e-4,
    kv_types: Sequence[str] = ("f32", "f16"),
    must_bind: bool = True,
) -> None:
    """Hold ``backend`` to the reference on networks that use every op, in each of ``formats``.

    Args:
        tolerance: the largest allowed ``max|a - b| / max|b|`` of logits. 1e-4 is right for float32 arithmetic; a
            backend that rounds activations to 8 bits needs about 5e-2. Caches other than f32 get at least 2e-3.
        must_bind: fail when the backend answers None to everything, since nothing would be tested.

    Raises:
        AssertionError: naming the network, what was done with it, and what went wrong.
    """
    reason = backend.idle_reason()
    assert reason is None, f"{backend.name} is idle on this machine: {reason}"
    bound_any = False
    for variant in VARIANTS:
        for format in formats:
            network = random_network(with_format(variant, format))
            for kv_type in kv_types:
                name = f"{backend.name}: {variant.name} in {format.name} with {kv_type} cache"
                # A key that lies between two half-precision numbers may be rounded to either.
                case = _Case(name, tolerance if kv_type == "f32" else max(tolerance, 2e-3), kv_type)
                options = BackendOptions(kv_type=kv_type)
                tested, reference = bind(network, [backend], options), bind(network, [], options)
                bound_any |= any(backend.name in grain for grain in tested.grains)
                case.check(tested, reference, network)
    assert bound_any or not must_bind, f"{backend.name} answered None to every network: nothing was tested"


class _Case:
    """One network, bound twice."""

    def __init__(self, name: str, tolerance: float, kv_type: str) -> None:
        self.name, self.tolerance, self.kv_type = name, tolerance, kv_type

    def check(self, tested: Forward, reference: Forward, network: Network) -> None:
        ids = np.random.default_rng(7).integers(0, N_VOCAB, 44).tolist()
        wanted = reference.step(Batch.of(ids, outputs=range(44)), reference.new_cache(self.kv_type, CACHE)).values
        for what, run in self._ways(tested, ids).items():
            self._near(run(), wanted, what)
        self._hidden(tested, reference, ids)
        self._foreign_cache(tested, reference, ids)
        self._branches(tested, ids, wanted)
        self._failures(tested, ids, wanted)
        self._threads(tested, ids)

    def _cache(self, forward: Forward) -> Cache:
        return forward.new_cache(self.kv_type, CACHE)

    def _ways(self, forward: Forward, ids: list[int]) -> dict[str, Callable[[], F32]]:
        """The same text, fed in ways that must not matter."""

        def at_once() -> F32:
            return forward.step(Batch.of(ids, outputs=range(len(ids))), self._cache(forward)).values

        def by_one() -> F32:
            cache = self._cache(forward)
            return np.concatenate([forward.step(Batch.of([t], position=i), cache).values for i, t in enumerate(ids)])

        def in_chunks() -> F32:
            cache, parts = self._cache(forward), []
            for start, stop in ((0, 21), (21, 22), (22, 34), (34, 44)):
                batch = Batch.of(ids[start:stop], position=start, outputs=range(stop - start))
                parts.append(forward.step(batch, cache).values)
            return np.concatenate(parts)

        def among_others() -> F32:
            cache, parts = self._cache(forward), []
            forward.step(Batch.of(ids[::-1][:20], sequence=9, outputs=[]), cache)
            for i, token in enumerate(ids):
                batch = Batch([ids[-i], token, 3], [20 + i, i, i], [9, 4, 2], [1])
                parts.append(forward.step(batch, cache).values)
            return np.concatenate(parts)

        return {"all at once": at_once, "token by token": by_one, "in chunks": in_chunks, "among others": among_others}

    def _hidden(self, tested: Forward, reference: Forward, ids: list[int]) -> None:
        rows = [5, 43, 0]
        batch = Batch(ids, range(44), [0] * 44, rows, want="hidden")
        found = tested.step(batch, self._cache(tested)).values
        self._near(found, reference.step(batch, self._cache(reference)).values, "hidden states of three rows")
        empty = tested.step(Batch.of(ids, outputs=[]), self._cache(tested)).values
        assert empty.shape == (0, N_VOCAB), f"{self.name}: a step without outputs returned shape {empty.shape}"

    def _foreign_cache(self, tested: Forward, reference: Forward, ids: list[int]) -> None:
        try:
            tested.step(Batch.of(ids), self._cache(reference))
        except SisError:
            return
        except Exception as error:
            raise AssertionError(f"{self.name}: another model's cache raised {type(error).__name__}") from error
        raise AssertionError(f"{self.name}: another model's cache was not refused")

    def _branches(self, forward: Forward, ids: list[int], wanted: F32) -> None:
        cache = self._cache(forward)
        forward.step(Batch.of(ids[:38], outputs=[]), cache)
        used = cache.nbytes
        cache.fork(0, 1, 35)
        assert cache.nbytes == used, (
            f"{self.name}: fork copied the cache ({used} to {cache.nbytes} bytes), not shared it"
        )
        forward.step(Batch.of([1, 2, 3], position=35, sequence=1, outputs=[]), cache)
        found = forward.step(Batch.of(ids[38:], position=38, outputs=range(6)), cache).values
        self._near(found, wanted[38:], "the source after its fork went another way")
        cache.truncate(1, 35)
        found = forward.step(Batch.of(ids[35:], position=35, sequence=1, outputs=range(9)), cache).values
        self._near(found, wanted[35:], "a fork that was cut back")
        cache.truncate(0, 10)
        found = forward.step(Batch.of(ids[10:], position=10, outputs=range(34)), cache).values
        self._near(found, wanted[10:], "a sequence that was cut back")
        try:
            saved = cache.save(0)
        except SisError:
            saved = None  # a cache may say that it cannot be saved
        if saved is not None:
            fresh = self._cache(forward)
            fresh.load(3, saved)
            fresh.truncate(3, 33)
            found = forward.step(Batch.of(ids[33:], position=33, sequence=3, outputs=range(11)), fresh).values
            self._near(found, wanted[33:], "a saved and loaded sequence")
        cache.drop(0)
        cache.drop(1)
        assert cache.nbytes == 0, f"{self.name}: {cache.nbytes} bytes are in use after every sequence was dropped"

    def _failures(self, forward: Forward, ids: list[int], wanted: F32) -> None:
        cache = self._cache(forward)
        forward.step(Batch.of(ids[:40], outputs=[]), cache)
        refused = {
            "a gap in the positions": Batch.of([1], position=44),
            "a position that was there before": Batch.of([1], position=39),
            "a token outside the vocabulary": Batch.of([N_VOCAB], position=40),
            "a negative token": Batch.of([-1], position=40),
            "more tokens than the cache holds": Batch.of([1] * CACHE, position=40),
        }
        for what, batch in refused.items():
            try:
                forward.step(batch, cache)
            except SisError:
                pass
            except Exception as error:
                raise AssertionError(f"{self.name}: {what} raised {type(error).__name__}, not a SisError") from error
            else:
                raise AssertionError(f"{self.name}: {what} was not refused")
            assert cache.length(0) == 40, f"{self.name}: {what} left {cache.length(0)} tokens in the cache, not 40"
        found = forward.step(Batch.of(ids[40:], position=40, outputs=range(4)), cache).values
        self._near(found, wanted[40:], "the sequence after refused steps")

    def _threads(self, forward: Forward, ids: list[int]) -> None:
        texts = [ids[i:] + ids[:i] for i in range(3)]
        alone = [forward.step(Batch.of(text), self._cache(forward)).values for text in texts]
        again = [forward.step(Batch.of(text), self._cache(forward)).values for text in texts]
        for one, other in zip(alone, again, strict=True):
            assert np.array_equal(one, other), f"{self.name}: the same step gave different numbers the second time"
        found: list[F32 | None] = [None] * len(texts)

        def work(i: int) -> None:
            found[i] = forward.step(Batch.of(texts[i]), self._cache(forward)).values

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, threaded in zip(alone, found, strict=True):
            assert threaded is not None, f"{self.name}: a step in a thread failed"
            assert np.array_equal(one, threaded), f"{self.name}: steps in threads gave other numbers than alone"

    def _near(self, found: F32, wanted: F32, what: str) -> None:
        assert found.dtype == np.float32, f"{self.name}: {what}: logits are {found.dtype}, not float32"
        assert found.shape == wanted.shape, f"{self.name}: {what}: shape {found.shape}, not {wanted.shape}"
        assert np.isfinite(found).all(), f"{self.name}: {what}: not finite"
        error = np.abs(found - wanted).max(-1) / np.abs(wanted).max()
        worst = int(error.argmax())
        assert error[worst] <= self.tolerance, (
            f"{self.name}: {what}: row {worst} is off by {error[worst]:.2g} of the largest value "
            f"({self.tolerance:g} allowed; {int((error > self.tolerance).sum())} of {len(error)} rows are off)"
        )
