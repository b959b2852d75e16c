"""Threads of the BLAS that numpy uses. Their number belongs to the process, so its users must agree on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

MOST = (1 << 31) - 1  # BLAS takes an int: a larger number would be cut, or refused in the middle of a step


class BlasThreads:
    """While any `limited` block runs, the smallest limit asked for holds; afterwards the old number is back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._controller: ThreadpoolController | None = None
        self._limiter: Any = None

    @contextmanager
    def limited(self, n_threads: int | None) -> Iterator[None]:
        """Run the block with at most ``n_threads`` BLAS threads; None sets no limit."""
        if n_threads is None:
            yield
            return
        with self._lock:
            self._wanted.append(n_threads)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(n_threads)
                self._apply()

    def _apply(self) -> None:
        if self._limiter is not None:
            self._limiter.restore_original_limits()
            self._limiter = None
        if self._wanted:
            self._controller = self._controller or ThreadpoolController()
            self._limiter = self._controller.limit(limits=min([*self._wanted, MOST]), user_api="blas")


BLAS_THREADS = BlasThreads()
"""The one of this process: the number of BLAS threads is global state of a foreign library, whoever counts it."""
