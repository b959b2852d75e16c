"""Places for prepared rows."""

from __future__ import annotations

from sis_core.backends.native import abi


class Places:
    """Which place rows are prepared into: another than the linears before read, since they may still be at work.

    Rows of one width share places, so that no place is wider than what lies in it, as far as there are places.
    """

    def __init__(self) -> None:
        self._widths: list[int] = []  # of each place in use
        self._last = -1

    def take(self, width: int) -> int:
        """The place of the next rows of ``width`` columns."""
        others = [place for place in range(len(self._widths)) if place != self._last]
        fitting = [place for place in others if self._widths[place] == width]
        if fitting:
            self._last = fitting[0]
        elif len(self._widths) < abi.PLACES:
            self._widths.append(width)
            self._last = len(self._widths) - 1
        else:
            self._last = min(others, key=lambda place: abs(self._widths[place] - width))
        return self._last
