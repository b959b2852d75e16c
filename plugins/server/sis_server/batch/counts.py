"""How many requests were answered, and how many failed and why."""

from __future__ import annotations

from collections import Counter

import msgspec
from attrs import define, field


class _Response(msgspec.Struct):
    status_code: int


class _Error(msgspec.Struct):
    message: str


class _Answer(msgspec.Struct):
    custom_id: str
    response: _Response
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Answer).decode


@define
class Counts:
    """
    Attributes:
        by_status: answers, by the status that they have.
        again: places of those that failed here (a status of 500 or more), and not because of what was asked.
        first: the first that failed, in words; empty when none did.
    """

    by_status: Counter[int] = field(factory=Counter)
    again: list[int] = field(factory=list)
    first: str = ""

    def add(self, answer: bytes) -> None:
        """One more line of answers; ValueError when it is none."""
        found = _decode(answer)
        status = found.response.status_code
        if status >= 500:
            self.again.append(self.by_status.total())
        if found.error is not None and not self.first:
            self.first = f"{found.custom_id[:80]!r}: {found.error.message[:200]}"
        self.by_status[status] += 1

    def __str__(self) -> str:
        failed = {status: n for status, n in sorted(self.by_status.items()) if status >= 400}
        n, n_failed = self.by_status.total(), sum(failed.values())
        said = f"{n - n_failed} of {n} requests were answered, and {n_failed} failed"
        if not failed:
            return said
        kinds = ", ".join(f"{status}: {count}" for status, count in failed.items())
        return f"{said} ({kinds}). The first, {self.first}"
