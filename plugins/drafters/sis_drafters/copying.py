"""Going on as an earlier place of a text went on."""

from __future__ import annotations

from collections.abc import Sequence


def copied(tokens: Sequence[int], start: int, k: int) -> list[int]:
    """``k`` tokens from place ``start`` on; where the text ends before that, what was copied goes on being the text."""
    found = list(tokens[start : start + k])
    while found and len(found) < k:
        found.append(found[len(found) - (len(tokens) - start)])
    return found
