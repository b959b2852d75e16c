"""How lowering says no."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 - no error, an answer
    """A record, or a value of one, that native code does not know: the backend answers None for it."""
