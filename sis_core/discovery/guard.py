"""Running a stranger's code: whatever it raises is a line to report, never the end of the program."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from sis_core.errors import SisError


class Guard:
    """A context that swallows every exception of the code inside, SystemExit and KeyboardInterrupt too.

    An interrupt by the user is let through: it comes from the signal, not from the code.

    Attributes:
        reason: one line on what was raised, or None.
        error: what was raised.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: BaseException | None = None
        self._interrupted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)
        if error is None:
            return False
        if isinstance(error, KeyboardInterrupt) and self._interrupted:
            return False
        self.error, self.reason = error, reason(error)
        return True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        self._before(number, frame)


def reason(error: BaseException) -> str:
    """One line on an exception: its first line, with its type unless it is one of ours."""
    try:
        text = str(error).strip().splitlines()
    except Exception:  # an exception that cannot be shown
        text = []
    first = text[0] if text else ""
    return first if isinstance(error, SisError) else f"{type(error).__name__}: {first}"
