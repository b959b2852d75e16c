"""Numbered pages, and how many hold each."""

from __future__ import annotations

from collections.abc import Iterable

from sis_core.errors import MemoryLimitError


class Pool:
    """Pages 0 to ``n_pages - 1``; one that nobody holds is free. −1 stands for a page that was given back."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self.uses = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))  # the last given back is the next taken: its memory is in use

    @property
    def n_free(self) -> int:
        return len(self._free)

    @property
    def n_used(self) -> int:
        """Pages in use; one that is shared counts once."""
        return self.n_pages - len(self._free)

    def take(self) -> int:
        """A free page, held once; MemoryLimitError when there is none."""
        if not self._free:
            raise MemoryLimitError(
                f"all {self.n_pages} pages of the cache are in use",
                where="cache",
                fix="drop a sequence or make the cache larger (--ctx)",
            )
        page = self._free.pop()
        self.uses[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """Hold pages once more."""
        for page in pages:
            if page >= 0:
                self.uses[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        """Hold pages once less."""
        for page in pages:
            if page >= 0:
                self.uses[page] -= 1
                if self.uses[page] == 0:
                    self._free.append(page)
