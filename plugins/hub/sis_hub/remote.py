"""A file somewhere else, and how patiently it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from attrs import field, frozen

LONGEST_WAIT = 60.0


@frozen
class Patience:
    """How often to try again while nothing arrives, and how long to wait: the first wait doubles each time.

    Attributes:
        timeout: seconds without a byte after which a connection counts as dead.
    """

    tries: int = 5
    first_wait: float = 1.0
    timeout: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, asked: str | None = None) -> None:
        """Wait before try ``attempt`` (from 1), as long as the server asked in seconds if it did and that is sane."""
        own = self.first_wait * 2 ** (attempt - 1)
        self.sleep(min(float(asked), LONGEST_WAIT) if asked and asked.isdecimal() else min(own, LONGEST_WAIT))


@frozen
class Remote:
    """A file that can be fetched.

    Attributes:
        url: its address. May hold secrets, so it is never shown.
        name: what messages call it.
        n_bytes: its length; None where nobody said it.
        sha256: of its content, or empty where nobody said it.
        git_sha1: of its content as a git blob (``"blob LENGTH\\0"`` and the bytes), or empty.
        headers: to send along; may hold secrets too.
        gguf: its content must be GGUF, which its first bytes show.
        tag: the entity tag, so that a file that changed meanwhile is not continued; empty where the address is fixed.
    """

    url: str = field(repr=False)
    name: str
    n_bytes: int | None = None
    sha256: str = ""
    git_sha1: str = ""
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    gguf: bool = False
    tag: str = field(default="", repr=False)
