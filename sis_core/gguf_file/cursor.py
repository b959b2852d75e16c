"""Bounded reads from the front of a file: every length is compared with the file before a byte is taken."""

from __future__ import annotations

from array import array
from struct import Struct, error
from typing import Any, BinaryIO

from sis_core.errors import GGUFError
from sis_core.gguf_file.tables import MAX_HEADER_BYTES, U32, U64

DAMAGED = "the file is damaged or its converter is faulty: download or convert it again"
CUT_SHORT = "the file is cut short or damaged, perhaps by an unfinished download: download it again"

_FIRST_READ = 2**16
_STRETCH = 2**16


def show(text: str) -> str:
    """`text` from a file, escaped and short enough to stand in a message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


class Cursor:
    """Reads a file of `size` bytes forward, keeping what it has read.

    The header is copied, not mapped: a file that shrinks meanwhile gives a short read instead of a dead process, and
    metadata stay valid after the file is closed.
    """

    def __init__(self, file: BinaryIO, size: int, where: str) -> None:
        self.size, self.where = size, where
        self.data = bytearray()
        self.pos = 0
        self._file = file

    def refuse(self, what: str, fix: str = DAMAGED) -> GGUFError:
        """An error about this file, to be raised by the caller."""
        return GGUFError(what, where=self.where, fix=fix)

    def need(self, n: int, what: str) -> None:
        """Makes the next `n` bytes available in `data`; `what` names them in errors.

        Raises:
            GGUFError: the file ends before them, or the header grows beyond every sane size.
        """
        end = self.pos + n
        if end > self.size:
            raise self.refuse(f"{what} needs {n} bytes at byte {self.pos}, but the file ends at {self.size}", CUT_SHORT)
        if end > MAX_HEADER_BYTES:
            raise self.refuse(f"{what} ends at byte {end}, but metadata may take no more than {MAX_HEADER_BYTES}")
        while end > len(self.data):
            more = self._file.read(min(self.size, max(end, 2 * len(self.data), _FIRST_READ)) - len(self.data))
            if not more:
                raise self.refuse(f"the file shrank to {len(self.data)} bytes while it was read", CUT_SHORT)
            self.data += more

    def take(self, n: int, what: str) -> bytes:
        """The next `n` bytes."""
        self.need(n, what)
        self.pos += n
        return bytes(self.data[self.pos - n : self.pos])

    def unpack(self, layout: Struct, what: str) -> Any:
        """The next number."""
        return layout.unpack(self.take(layout.size, what))[0]

    def u32(self, what: str) -> int:
        """The next uint32."""
        return int(self.unpack(U32, what))

    def u64(self, what: str) -> int:
        """The next uint64."""
        return int(self.unpack(U64, what))

    def text(self, what: str, limit: int | None = None) -> str:
        """The next string: a uint64 length, then that many bytes of UTF-8.

        Raises:
            GGUFError: it is longer than `limit` or the file, or not UTF-8.
        """
        n = self.u64(f"the length of {what}")
        if limit is not None and n > limit:
            raise self.refuse(f"{what} is {n} bytes long; at most {limit} are allowed")
        raw = self.take(n, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as bad:
            shown = raw[max(bad.start - 8, 0) : bad.start + 8]
            raise self.refuse(f"{what} is not UTF-8 at its byte {bad.start} ({shown!r})") from None

    def string_offsets(self, count: int, what: str) -> array[int]:
        """Where the next `count` strings begin (at their lengths), and at the end where the last one stops.

        A vocabulary has hundreds of thousands of strings, so numpy finds most of them, a stretch of bytes at a time.
        The loop is for what is left of a stretch, and carries no check: it runs until it leaves the bytes read so far,
        and only then asks whether the file goes on.
        """
        self.need(count * U64.size, what)
        offsets = array("I")
        add, read, prefix = offsets.append, U64.unpack_from, U64.size
        while len(offsets) <= count:
            border = self.pos + _STRETCH
            pos = self._short_strings(offsets, count)
            try:
                for _ in range(count - len(offsets)):
                    if pos >= border:
                        break
                    (n,) = read(self.data, pos)
                    add(pos)
                    pos += n + prefix
            except (error, OverflowError):  # the next string begins beyond the bytes read so far
                self._reach(pos, offsets, what)
                self.need(pos + prefix - self.pos, f"string {len(offsets)} of {what}")
            else:
                self._reach(pos, offsets, what)
                if len(offsets) == count:
                    add(pos)
            self.pos = pos
        return offsets

    def _short_strings(self, offsets: array[int], count: int) -> int:
        """Note where strings begin, of those that follow one another from `pos` on within a stretch of the bytes read;
        where the next one begins.

        A length below 256 is a byte with seven zeros after it. Wherever that stands is such a length, if the string it
        begins ends where the next of them stands: text has no zeros, and what has them is left to the caller.
        """
        import numpy as np

        n = min(len(self.data) - self.pos, _STRETCH) - U64.size + 1
        if n <= 0:
            return self.pos
        lengths = np.ndarray(n, "<u8", self.data, self.pos, (1,))  # one at each byte
        at = np.flatnonzero(lengths < 256)[: count - len(offsets)]
        ends = at + lengths[at].astype(np.intp) + U64.size
        broken = np.flatnonzero(np.concatenate(([0], ends[:-1])) != at)
        n_found = int(broken[0]) if len(broken) else len(at)
        if not n_found:
            return self.pos
        offsets.frombytes((at[:n_found] + self.pos).astype(f"u{offsets.itemsize}").tobytes())
        return self.pos + int(ends[n_found - 1])

    def _reach(self, end: int, offsets: array[int], what: str) -> None:
        if offsets and end > self.size:
            self.pos = offsets[-1]
            what = f"string {len(offsets) - 1} of {what}"
        self.need(end - self.pos, what)
