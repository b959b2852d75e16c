"""Pages that the first step will need, mapped while Python still loads the rest of a model.

Mapping a file's pages and taking memory cost a first prompt a tenth of its time, and a second processor has nothing to
do until then. So a thread does it in the order in which things become known, and stops when the first step begins.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeAlias

from sis_core.arrays import U8
from sis_core.backends.native.guard import Guarded
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.packing import mapping_of

GAP = 1 << 16  # bytes between tensors that are mapped with them

Job: TypeAlias = tuple[Callable[[int, int, int], None], int, int]  # a function of the library, an address, bytes


class Ahead:
    """Maps what it is told of, in a thread, until `stop`."""

    def __init__(self, library: Library) -> None:
        self._library, self._stop = library, ctypes.c_uint32(0)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._held: list[object] = []  # stays where it is, and guarded, as long as the thread may read it

    def file(self, tensors: Iterable[U8]) -> None:
        """Map the pages of these rows of files. Whoever guards them finds out about one that is cut meanwhile."""
        rows = list(tensors)
        self._held += rows
        for start, end in spans(rows):
            self._held.append(Guarded(self._library, start, end - start))
            self._begin((self._library.map_file, start, end - start))

    def memory(self, place: U8) -> None:
        """Take the memory of these bytes, ``(n,)``, which nobody writes before `stop`."""
        self._held.append(place)
        self._begin((self._library.map_memory, address(place), place.nbytes))

    def _begin(self, job: Job) -> None:
        self._jobs.put(job)
        if self._thread is None:  # a daemon: a program that ends does not wait for a file to be read
            self._thread = threading.Thread(target=_work, args=(self._jobs, self._stop), daemon=True)
            self._thread.start()
            # When nobody needs it, and before Python ends: from then on a daemon stands still.
            weakref.finalize(self, _end, self._thread, self._jobs, self._stop, self._held)

    def stop(self) -> None:
        """Return once the thread has ended, after some page or a piece of the file; again is fine."""
        if (thread := self._thread) is None:
            return
        _end(thread, self._jobs, self._stop, self._held)
        self._thread = None


def _work(jobs: SimpleQueue[Job | None], stop: ctypes.c_uint32) -> None:
    while (job := jobs.get()) is not None and not stop.value:
        function, start, n_bytes = job
        function(start, n_bytes, ctypes.addressof(stop))


def _end(thread: threading.Thread, jobs: SimpleQueue[Job | None], stop: ctypes.c_uint32, held: list[object]) -> None:
    stop.value = 1
    jobs.put(None)
    thread.join()
    while held:  # guards before what they guard
        held.pop()


def spans(tensors: Iterable[U8]) -> list[tuple[int, int]]:
    """Where rows begin and end, by address; those of a file that lie side by side in one piece.

    What lies between two files is somebody else's memory, or none.
    """
    found: list[tuple[int, int]] = []
    last = None
    for rows in sorted((rows for rows in tensors if rows.size), key=address):
        start, mapping = address(rows), mapping_of(rows)
        end = start + (len(rows) - 1) * rows.strides[0] + rows.shape[1]
        if found and mapping is last and start - found[-1][1] <= GAP:
            start = found.pop()[0]
        found.append((start, end))
        last = mapping
    return found
