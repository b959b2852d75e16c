"""What a template may cost. A template comes with a model, from a stranger: it must end, soon and small."""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

from attrs import evolve, frozen

LOOK_EVERY = 16  # steps between two looks at the clock: one step is never longer than a pass over what is alive
CONTAINER_BYTES = 64
ITEM_BYTES = 16
SCALARS = frozenset({int, float, bool, type(None)})


@frozen
class Ceilings:
    """Limits of one template, far above what the templates of real models need.

    Attributes:
        source: characters of a template. The longest among 70 known ones has 17,000.
        tokens: of the template language, in one template (known: 4,000).
        depth: nested nodes of the template's tree, and nested lists and dicts that are printed or compared.
        steps: rounds of loops, calls, operators and, for work that grows with its input, their like; four more for
            each byte of the messages.
        seconds: of the thread's own time; two more for each MiB of the messages.
        output: characters of text.
        memory: bytes of the values that a template makes, all together; 64 more for each byte of the messages.
    """

    source: int = 128 * 1024
    tokens: int = 40_000
    depth: int = 200
    steps: int = 1_000_000
    seconds: float = 1.0
    output: int = 4 * 1024 * 1024
    memory: int = 32 * 1024 * 1024

    def scaled(self, given: int) -> Ceilings:
        """The ceilings for messages of ``given`` bytes."""
        return evolve(
            self,
            steps=self.steps + 4 * given,
            seconds=self.seconds + 2 * given / 2**20,
            memory=self.memory + 64 * given,
        )


@frozen
class Measure:
    """The size of a value spelt out: its bytes, and the depths of all items in it, which indents multiply."""

    size: int
    depths: int


class CeilingError(Exception):
    """A template went over a ceiling. The message says which."""


def character_bytes(*texts: str) -> int:
    """Bytes of a character, at most, in a text made from these."""
    return 1 if all(text.isascii() for text in texts) else 4


class Meter:
    """Counts what one use of one template costs. Belongs to one thread."""

    def __init__(self, ceilings: Ceilings) -> None:
        self.ceilings = ceilings
        self._steps = 0
        self._bytes = 0
        self._written = 0
        self._until_look = LOOK_EVERY
        self._end = time.thread_time() + ceilings.seconds

    def spend(self, steps: int = 1) -> None:
        """Count ``steps``, and look at the clock now and then."""
        self._steps += steps
        self._until_look -= steps
        if self._until_look <= 0:
            self._look()

    def _look(self) -> None:
        self._until_look = LOOK_EVERY
        if self._steps > self.ceilings.steps:
            raise CeilingError(f"it takes more than {self.ceilings.steps} steps")
        if time.thread_time() > self._end:
            raise CeilingError(f"it takes longer than {self.ceilings.seconds:.1f} s")

    def hold(self, size: int) -> None:
        """Count ``size`` bytes that are about to be made, and the work of making them."""
        self._bytes += size
        if self._bytes > self.ceilings.memory:
            raise CeilingError(f"it makes more than {self.ceilings.memory // 1024} KiB of values")
        self.spend(1 + size // 1024)

    def hold_items(self, n: int) -> None:
        """Count a new container of ``n`` items."""
        self.hold(CONTAINER_BYTES + ITEM_BYTES * n)

    def write(self, n: int) -> None:
        """Count ``n`` characters of output."""
        self._written += n
        if self._written > self.ceilings.output:
            raise CeilingError(f"it writes more than {self.ceilings.output} characters")

    def measure(self, value: Any) -> Measure:
        """How large ``value`` is when spelt out, lists and dicts with all they hold; counts the walk as work.

        Lists can hold the same list many times, so that a few of them spell out to more than any memory: every visit
        counts.
        """
        if type(value) in SCALARS:
            return Measure(32, 0)
        total = depths = 0
        stack: list[tuple[Any, int]] = [(value, 0)]
        while stack:
            item, depth = stack.pop()
            depths += depth
            if isinstance(item, str):
                total += 4 + len(item) * character_bytes(item) * (1 if item.isprintable() else 6)
                self.spend(1 + len(item) // 1024)
                continue
            total += 8
            if isinstance(item, dict):
                inner: Iterable[Any] = [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | ItemsView | KeysView | ValuesView):
                inner = item
            else:
                continue
            self.spend(1 + len(item) // 4)
            if depth >= self.ceilings.depth:
                raise CeilingError(f"lists or dicts are nested more than {self.ceilings.depth} deep")
            stack.extend((child, depth + 1) for child in inner)
        return Measure(total, depths)


class Counted:
    """An iterable of which every item costs a step."""

    def __init__(self, iterable: Iterable[Any], meter: Meter) -> None:
        self._iterable, self._meter = iterable, meter

    def __iter__(self) -> Iterator[Any]:
        spend = self._meter.spend
        for item in self._iterable:
            spend()
            yield item

    def __bool__(self) -> bool:
        return bool(self._iterable)

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]  # TypeError where it has none, as Jinja expects
