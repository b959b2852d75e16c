"""`check_backend`: a backend against the numpy reference on whole models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, Cache
from sis_core.backends.bind import bind
from sis_core.errors import SisError
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat
from sis_core.step import Batch
from sis_core.testing.diagnosis import diagnose, error, explain
from sis_core.testing.networks import N_VOCAB, VARIANTS, Variant, random_network, with_format
from sis_core.testing.ways import CACHE, HIDDEN, LOGITS, Way, new_cache

FORMATS: tuple[QuantFormat, ...] = (F32Format(), F16Format(), BF16Format())
CLOSE = 2e-3
"""A backend that differs by more may choose other experts for a row, and rightly have quite other numbers."""
T = TypeVar("T")
ROUNDED_EITHER_WAY = {"f16": 2e-3, "bf16": 4e-2, "q8_0": 6e-2, "q4_0": 0.1}  # see `check_backend`


def check_backend(
    backend: Backend,
    *,
    formats: Sequence[QuantFormat] = FORMATS,
    tolerance: float = 1e-4,
    kv_types: Sequence[str] = ("f32", "f16"),
    must_bind: bool = True,
) -> None:
    """Hold ``backend`` to the reference on networks that use every op, in each of ``formats``.

    Wrong numbers are looked into: the message names the linear, or the smallest network that shows the fault, and whose
    numbers they are, where it is a usual fault ("these are the numbers of a backend that forgets the biases of norms").

    Args:
        formats: of the weights; a backend for formats of its own names instances of them.
        tolerance: the largest allowed ``max|a - b| / max|b|`` of logits. 1e-4 is right for float32 arithmetic; a
            backend that rounds activations to 8 bits needs about 5e-2. Caches other than f32 get at least what a key
            makes that lies between two of their numbers, and may be rounded to either (`ROUNDED_EITHER_WAY`).
        kv_types: of caches, of those that the backend keeps.
        must_bind: fail when the backend answers None to everything, since nothing would be tested.

    Raises:
        AssertionError: naming the network, what was done with it, what went wrong, and what is likely.
    """
    reason = backend.idle_reason()
    assert reason is None, f"{backend.name} is idle on this machine: {reason}"
    bound_any = False
    for variant in VARIANTS:
        for format in formats:
            for kv_type in kv_types:
                limit = max(tolerance, ROUNDED_EITHER_WAY.get(kv_type, 0))
                if variant.chooses and limit > CLOSE:
                    continue
                case = _Case(backend, variant, format, kv_type, limit)
                bound_any |= case.is_bound
                case.check()
    names = ", ".join(format.name for format in formats)
    assert bound_any or not must_bind, (
        f"{backend.name} answered None to every network in {names}: nothing was tested; a backend for other formats "
        "names them: formats=[…] of check_backend, or formats = […] in its BackendSuite"
    )


class _Case:
    """One network, bound twice."""

    def __init__(self, backend: Backend, variant: Variant, format: QuantFormat, kv_type: str, tolerance: float) -> None:
        self.name = f"{backend.name}: {variant.name} in {format.name} with {kv_type} cache"
        self.backend, self.format, self.kv_type, self.tolerance = backend, format, kv_type, tolerance
        self.options = BackendOptions(kv_type=kv_type)
        self.network = random_network(with_format(variant, format))
        self.tested = bind(self.network, [backend], self.options)
        self.reference = bind(self.network, [], self.options)
        self.ids: list[int] = np.random.default_rng(7).integers(0, N_VOCAB, 44).tolist()
        self.is_bound = any(backend.name in grain for grain in self.tested.grains)
        self.wanted = LOGITS[0].run(self.reference, kv_type, self.ids)  # whatever the way

    def check(self) -> None:
        self._repeats()
        for way in (*LOGITS, HIDDEN):
            self._way(way)
        self._no_outputs()
        self._foreign_cache()
        self._branches(self.wanted)
        self._failures(self.wanted)
        self._threads()

    def _cache(self) -> Cache:
        return new_cache(self.tested, self.kv_type)

    def _ran(self, what: str, run: Callable[[], T]) -> T:
        """Run something that must work."""
        try:
            return run()
        except Exception as raised:
            fault = f"{self.name}: {what} raised {type(raised).__name__}: {raised}"
            likely = diagnose(self.backend, self.options, self.format, LOGITS[0], self.ids, self.tolerance)
            raise AssertionError("\n  ".join(filter(None, (fault, likely)))) from raised

    def _repeats(self) -> None:
        one, other = (
            self._ran("a step", lambda: self.tested.step(Batch.of(self.ids), self._cache()).values) for _ in range(2)
        )
        assert np.array_equal(one, other, equal_nan=True), (
            f"{self.name}: the same step gave different numbers the second time: something is kept from step to step, "
            "or the order of additions changes"
        )

    def _way(self, way: Way) -> None:
        found = self._ran(way.name, lambda: way.run(self.tested, self.kv_type, self.ids))
        wanted = way.run(self.reference, self.kv_type, self.ids) if way is HIDDEN else self.wanted
        if fault := self._fault(found, wanted):
            likely = diagnose(self.backend, self.options, self.format, way, self.ids, self.tolerance)
            if not likely:
                whose = explain(self.network, self.options, way, self.ids, found, wanted, self.tolerance)
                likely = f"networks with one op each are right; {whose}"
            raise AssertionError("\n  ".join(filter(None, (f"{self.name}: {way.name}: {fault}", way.hint, likely))))

    def _fault(self, found: F32, wanted: F32) -> str:
        """What is wrong with a result, or an empty text."""
        if found.dtype != np.float32:
            return f"values are {found.dtype}, not float32"
        if found.shape != wanted.shape:
            return f"shape {found.shape}, not {wanted.shape}"
        if not np.isfinite(found).all():
            return "not finite"
        errors = error(found, wanted)
        worst = int(errors.argmax())
        if errors[worst] <= self.tolerance:
            return ""
        return (
            f"row {worst} is off by {errors[worst]:.2g} of the largest value "
            f"({self.tolerance:g} allowed; {int((errors > self.tolerance).sum())} of {len(errors)} rows are off)"
        )

    def _no_outputs(self) -> None:
        step = lambda: self.tested.step(Batch.of(self.ids, outputs=[]), self._cache()).values  # noqa: E731
        empty = self._ran("a step without outputs", step)
        assert empty.shape == (0, N_VOCAB), f"{self.name}: a step without outputs returned shape {empty.shape}"

    def _foreign_cache(self) -> None:
        try:
            self.tested.step(Batch.of(self.ids), new_cache(self.reference, self.kv_type))
        except SisError:
            return
        except Exception as raised:
            raise AssertionError(f"{self.name}: another model's cache raised {type(raised).__name__}") from raised
        raise AssertionError(f"{self.name}: another model's cache was not refused")

    def _goes_on(self, cache: Cache, sequence: int, start: int, wanted: F32, what: str, likely: str) -> None:
        """The text from token ``start`` on, in a sequence that must have so many."""
        assert cache.length(sequence) == start, (
            f"{self.name}: {what} has {cache.length(sequence)} tokens in the cache, not {start}"
        )
        batch = Batch.of(self.ids[start:], position=start, sequence=sequence, outputs=range(len(self.ids) - start))
        found = self._ran(what, lambda: self.tested.step(batch, cache).values)
        fault = self._fault(found, wanted[start:])
        assert not fault, f"{self.name}: {what}: {fault}\n  {likely}"

    def _branches(self, wanted: F32) -> None:
        cache, ids = self._cache(), self.ids
        self.tested.step(Batch.of(ids[:38], outputs=[]), cache)
        used = cache.nbytes
        at = cache.reach(0, 35)
        cache.fork(0, 1, at)
        assert cache.nbytes == used, (
            f"{self.name}: fork copied the cache ({used} to {cache.nbytes} bytes), not shared it"
        )
        self.tested.step(Batch.of([1, 2, 3], position=at, sequence=1, outputs=[]), cache)
        shared = "its keys and values were overwritten: a page that sequences share must be copied before it is written"
        self._goes_on(cache, 0, 38, wanted, "the source after its fork went another way", shared)
        cut = "tokens that were cut off are still seen, or those that followed went to another place than they are read"
        at = cache.reach(1, at)
        cache.truncate(1, at)
        self._goes_on(cache, 1, at, wanted, "a fork that was cut back", cut)
        at = cache.reach(0, 10)
        cache.truncate(0, at)
        self._goes_on(cache, 0, at, wanted, "a sequence that was cut back", cut)
        saved = None
        with suppress(SisError):  # a cache may say that it cannot be saved
            saved = list(cache.save(0))
        if saved is not None:
            fresh = self._cache()
            self._ran("loading a saved sequence", lambda: fresh.load(3, saved))
            at = fresh.reach(3, 33)
            fresh.truncate(3, at)
            lost = "save and load do not keep every key and value of every layer"
            self._goes_on(fresh, 3, at, wanted, "a saved and loaded sequence", lost)
        cache.drop(0)
        cache.drop(1)
        assert cache.nbytes == 0, f"{self.name}: {cache.nbytes} bytes are in use after every sequence was dropped"

    def _failures(self, wanted: F32) -> None:
        cache = self._cache()
        self.tested.step(Batch.of(self.ids[:40], outputs=[]), cache)
        refused = {
            "a gap in the positions": Batch.of([1], position=44),
            "a position that was there before": Batch.of([1], position=39),
            "a token outside the vocabulary": Batch.of([N_VOCAB], position=40),
            "a negative token": Batch.of([-1], position=40),
            "more tokens than the cache holds": Batch.of([1] * CACHE, position=40),
        }
        for what, batch in refused.items():
            try:
                self.tested.step(batch, cache)
            except SisError:
                pass
            except Exception as raised:
                raise AssertionError(f"{self.name}: {what} raised {type(raised).__name__}, not a SisError") from raised
            else:
                raise AssertionError(f"{self.name}: {what} was not refused")
            assert cache.length(0) == 40, f"{self.name}: {what} left {cache.length(0)} tokens in the cache, not 40"
        likely = "a refused step has written keys or values: check everything before anything is written"
        self._goes_on(cache, 0, 40, wanted, "the sequence after refused steps", likely)

    def _threads(self) -> None:
        texts = [self.ids[i:] + self.ids[:i] for i in range(3)]
        alone = [self.tested.step(Batch.of(text), self._cache()).values for text in texts]
        found: list[F32 | None] = [None] * len(texts)

        def work(i: int) -> None:
            found[i] = self.tested.step(Batch.of(texts[i]), self._cache()).values

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, threaded in zip(alone, found, strict=True):
            assert threaded is not None, f"{self.name}: a step in a thread failed"
            assert np.array_equal(one, threaded), (
                f"{self.name}: steps in threads gave other numbers than alone: all that changes belongs into the cache"
            )
