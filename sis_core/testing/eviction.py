"""`check_eviction`: what every eviction must keep to, however it rates pages."""

from __future__ import annotations

import random
from typing import Any, NoReturn

import attrs
import numpy as np

from sis_core.arrays import F32
from sis_core.eviction import Eviction

PAGE = 32


def check_eviction(eviction: type[Eviction], /, **fields: Any) -> None:
    """Hold an eviction to the contract of `sis_core.eviction`, with ``fields`` as its options.

    Raises:
        AssertionError: naming the eviction, the fault, and the attention in which it showed.
    """
    check = _Check(eviction, fields)
    check.options()
    for n_layer, n_head, n_pages in [(1, 1, 3), (4, 3, 40), (2, 8, 257)]:
        for case in ("even", "one page", "every layer its own"):
            check.rates(case, _attention(case, n_layer, n_head, check.made.window, n_pages))


def _attention(case: str, n_layer: int, n_head: int, n: int, n_pages: int) -> list[F32]:
    chance = np.random.default_rng(n_pages)
    found = []
    for layer in range(n_layer):
        heads = n_head + layer if case == "every layer its own" else n_head
        shares = chance.random((heads, n, n_pages)) + 0.01 if case != "even" else np.ones((heads, n, n_pages))
        if case == "one page":
            shares[..., n_pages // 2] = 1000
        found.append((shares / shares.sum(-1, keepdims=True)).astype(np.float32))
    return found


class _Check:
    def __init__(self, eviction: type[Eviction], fields: dict[str, Any]) -> None:
        self.eviction, self.fields = eviction, fields
        self.name = getattr(eviction, "name", eviction.__name__)

    def fail(self, fault: str, case: str = "") -> NoReturn:
        raise AssertionError(f"eviction {self.name}: {fault}{f' ({case})' if case else ''}")

    def options(self) -> None:
        if not isinstance(getattr(self.eviction, "name", None), str):
            self.fail("has no name")
        self.made = self.eviction(**self.fields)
        for field in "keep", "window":
            value = getattr(self.made, field, None)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                self.fail(f"{field} is {value!r}, not a number of tokens")
        if self.made.window > PAGE:
            self.fail(f"looks at {self.made.window} tokens, more than the {PAGE} of a page")
        for field in attrs.fields(self.eviction) if attrs.has(self.eviction) else ():
            if not field.metadata.get("help"):
                self.fail(f'the option {field.name} has no help: give metadata={{"help": ...}}')

    def rates(self, case: str, attention: list[F32]) -> None:
        """One prompt: a finite number for each page, the same each time, and nothing else changed."""
        n_pages = attention[0].shape[2]
        case = f"{case}, {n_pages} pages"
        before = [layer.copy() for layer in attention]
        chances = str(np.random.get_state(legacy=False)), random.getstate()
        first = np.asarray(self.made.rate(attention))
        if not all(map(np.array_equal, attention, before)):
            self.fail("changed the attention that it was given", case)
        again = np.asarray(self.made.rate(attention))
        if first.shape != (n_pages,) or first.dtype not in (np.float32, np.float64):
            self.fail(f"gave {first.dtype} of shape {first.shape}, not a number for each of {n_pages} pages", case)
        if not np.isfinite(first).all():
            self.fail("gave numbers that are not finite", case)
        if not np.array_equal(first, again):
            self.fail("rates the same attention differently the second time", case)
        if (str(np.random.get_state(legacy=False)), random.getstate()) != chances:
            self.fail("draws from a global generator", case)
        if case.startswith("one page") and int(first.argmax()) != n_pages // 2:
            self.fail("does not prefer the page that every row of every head looks at", case)
