"""What a text keeps of its past in the cache, and when the rest is given back.

Pages are given back at places that depend on the text alone, and no step goes past such a place before they are: so
that company, guesses, and being computed again never change what a token sees. What stays keeps its places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache
from sis_core.cache.pages import PAGE_SIZE, pages_for
from sis_core.errors import FOREIGN, ContextError, PluginError, SisError
from sis_core.eviction import Eviction
from sis_core.step import MAX_INT32

Look: TypeAlias = Callable[[int], Sequence[F32]]
"""Feeds a text's last so many tokens again, and returns where their attention goes; see `Output.attention`."""

SHARES = 4  # a window gives back one of so many parts at a time: less often is less exact, more often more steps
MOST_PAGES = 16  # and no more than this: a step has 512 rows


class EvictionError(PluginError):
    """An eviction failed over one sequence, with which the others have nothing to do."""

    sequence = -1


class Retention(ABC):
    """What one text keeps."""

    limit: int | None
    """Tokens that the text may come to; None for those of the context."""

    @property
    @abstractmethod
    def n_alike(self) -> int:
        """Tokens up to which the text is in the cache as it would be without this."""

    @property
    @abstractmethod
    def most_pages(self) -> int | None:
        """Pages that the text has at once at most; None for no such limit."""

    @abstractmethod
    def until(self, length: int) -> int:
        """Rows that a step may feed after ``length`` tokens, before pages are to be given back."""

    @abstractmethod
    def evict(self, cache: Cache, sequence: int, length: int, look: Look) -> None:
        """Give back what the tokens after the first ``length``, which are all there is, do not see.

        It is called before every step: most have nothing to give back. EvictionError when a plugin fails at it.
        """


@frozen
class SinksAndWindow(Retention):
    """The first tokens and the newest, together as many as the context has: Xiao et al. 2023 (StreamingLLM), but with
    the places that tokens have in the text, so that nothing is computed again. Windows that layers have of their own
    are cut to this one.

    ContextError for a context of too few pages.
    """

    n_sinks: int
    n_ctx: int
    stride: int = field(init=False)  # pages that are given back together

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "stride", min(max(1, (self._n_pages - self._first) // SHARES), MOST_PAGES))
        if self._n_pages - self._first < 2:
            raise ContextError(
                f"{self.n_ctx} tokens, in pages of {PAGE_SIZE}, leave no room for a window after {self.n_sinks} kept",
                where="context",
                fix=f"keep fewer first tokens, or ask for --ctx {(self._first + 2) * PAGE_SIZE} or more",
            )

    @property
    def limit(self) -> int:  # type: ignore[override]
        return MAX_INT32 - 1

    @property
    def _first(self) -> int:
        return pages_for(self.n_sinks)

    @property
    def _n_pages(self) -> int:
        return self.n_ctx // PAGE_SIZE

    @property
    def n_alike(self) -> int:
        return (self._n_pages // self.stride) * self.stride * PAGE_SIZE

    @property
    def most_pages(self) -> int:
        return self._n_pages

    def until(self, length: int) -> int:
        n = self.stride * PAGE_SIZE
        return n - length % n

    def gone(self, length: int) -> range:
        """Pages that what comes after ``length`` tokens does not see."""
        begun = length // PAGE_SIZE // self.stride * self.stride
        return range(self._first, self._first + max(0, begun + self.stride - self._n_pages))

    def evict(self, cache: Cache, sequence: int, length: int, look: Look) -> None:
        gone = self.gone(length)
        if len(gone) * PAGE_SIZE > cache.n_evicted(sequence):
            cache.evict(sequence, gone, windowed=True)


@frozen(eq=False)
class BestOfPrompt(Retention):
    """The pages of a prompt that an eviction rates highest, and all that comes after it."""

    eviction: Eviction
    n_prompt: int

    limit = None

    @property
    def n_alike(self) -> int:
        return self.n_prompt

    @property
    def most_pages(self) -> None:
        return None

    def until(self, length: int) -> int:
        return self.n_prompt - length if length < self.n_prompt else MAX_INT32

    def evict(self, cache: Cache, sequence: int, length: int, look: Look) -> None:
        if length != self.n_prompt or cache.n_evicted(sequence):
            return
        attention = look(self.eviction.window)
        try:
            pages = worst_pages(self.eviction, attention, length)
        except SisError as error:
            failed = EvictionError(error.what, where=error.where, fix=error.fix)
            failed.sequence = sequence
            raise failed from error
        cache.evict(sequence, pages)


def worst_pages(eviction: Eviction, attention: Sequence[F32], length: int) -> list[int]:
    """Pages of a text of ``length`` tokens that do not stay. PluginError where the scores are none."""
    n_pages, begun = pages_for(length), (length - eviction.window) // PAGE_SIZE
    try:
        scores = np.asarray(eviction.rate(attention))
    except SisError:
        raise
    except FOREIGN as error:  # a stranger's
        raise PluginError(f"failed: {type(error).__name__}: {error}", where=f"eviction {eviction.name}") from error
    if scores.shape != (n_pages,) or scores.dtype.kind != "f" or not np.isfinite(scores).all():
        raise PluginError(
            f"gave {scores.dtype} scores of shape {scores.shape}, not {n_pages} finite numbers",
            where=f"eviction {eviction.name}",
        )
    n_best = max(0, eviction.keep // PAGE_SIZE - (n_pages - begun))
    order = np.argsort(-scores[:begun], kind="stable")
    worst: list[int] = np.sort(order[n_best:]).tolist()
    return worst
