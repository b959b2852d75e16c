"""sis as a side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sis_core.backend import Cache
from sis_core.backends.native import NativeBackend
from sis_core.registry import Registry
from sis_core.step import Batch, Run
from sis_core.texts.language_model import LanguageModel, load
from speed import course, theirs

TOKENS = theirs.TOKENS  # both sides are fed the same
N_TOKENS = 64  # of a measurement of shares


class Sis:
    """One model with the backend that sis chooses by itself; without a path the one that comes with it."""

    def __init__(self, path: str | None, n_threads: int, room: int, registry: Registry | None = None) -> None:
        self.registry = registry or Registry.load()
        self.model: LanguageModel = load(path, n_threads=n_threads, n_ctx=room, registry=self.registry)
        self._cache: Cache | None = None
        self._made = (0, 0)

    @property
    def cache(self) -> Cache:
        assert self._cache is not None, "begin comes first"
        return self._cache

    def about(self) -> str:
        backend = self.registry.get("backends", self.model.backend)
        return f"{backend.name}: {backend.describe()}"

    def begin(self, n: int, room: int) -> None:
        if self._made == (n, room):
            for sequence in range(n):
                self.cache.drop(sequence)
        else:
            self._cache = None  # gone before the next takes its memory
            self._cache, self._made = self.model.new_cache(n * (room + 64)), (n, room)

    def feed(self, n: int) -> None:
        for at in range(0, n, course.CHUNK):
            tokens = TOKENS[: min(course.CHUNK, n - at)]
            last = [len(tokens) - 1] if at + course.CHUNK >= n else []
            self.model.step(Batch.of(tokens, position=self.cache.length(0), outputs=last), self.cache)

    def token(self, n: int) -> None:
        runs = tuple(Run(sequence, self.cache.length(sequence), 1) for sequence in range(n))
        self.model.step(Batch(TOKENS[:n], runs, range(n)), self.cache)

    def rewind(self, length: int) -> None:
        self.cache.truncate(0, length)

    def shares(self) -> Iterator[tuple[str, float]]:
        """Of a step alone, and of a greedy token with session, sampler and text."""
        backend = self.registry.get("backends", self.model.backend)
        if not isinstance(backend, NativeBackend):
            raise RuntimeError(f"{backend.name} runs no native code")
        self.begin(1, course.SPARE)
        for _ in range(16):  # weights are packed in the first steps
            self.token(1)
        self.begin(1, course.SPARE)
        self.token(1)
        with stopwatch(backend.library()) as inside:
            yield "step", share(lambda: [self.token(1) for _ in range(course.SPARE - 2)], inside)
        with stopwatch(backend.library()) as inside:
            pieces = self.model.generate([5], sampler="greedy", max_tokens=N_TOKENS, ignore_end=True)
            next(pieces)
            yield "token", share(lambda: list(pieces), inside)


@contextmanager
def stopwatch(library: Any) -> Iterator[list[float]]:
    """Collects the seconds of every call of sis_run and sis_multi_step."""
    seconds: list[float] = []

    def watched(function: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            started = course.clock()
            code = function(*arguments)
            seconds.append(course.clock() - started)
            return code

        return call

    run, multi_step = library.run, library.multi_step
    library.run, library.multi_step = watched(run), watched(multi_step)
    try:
        yield seconds
    finally:
        library.run, library.multi_step = run, multi_step


def share(work: Callable[[], object], inside: list[float]) -> float:
    """Percent of the time of ``work`` that is outside the calls that ``inside`` collects."""
    inside.clear()
    started = course.clock()
    work()
    whole = course.clock() - started
    return 100 * (1 - sum(inside) / whole)


def main() -> None:
    asked = course.request()
    Registry.load()  # imports the plugins: loading starts after imports, on both sides
    opened: list[Sis] = []

    def engine() -> Sis:
        opened.append(Sis(asked["path"], asked["n_threads"], asked["room"]))
        return opened[0]

    course.run(engine, asked["rows"])
    course.say(about=opened[0].about())


if __name__ == "__main__":
    main()
