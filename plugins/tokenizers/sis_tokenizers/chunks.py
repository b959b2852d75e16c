"""Long texts in parts, so that memory stays small."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Between a letter and a space before a letter, and after a lone line end before a letter, nearly every
# pattern of `pre_tokenizers` cuts, whatever stands before and after.
BOUNDARY = re.compile(r"[A-Za-z](?= [A-Za-z])|\S\n(?=[A-Za-z])")
NOWHERE = re.compile(r"(?!)")


def chunks(text: str, size: int, boundary: re.Pattern[str]) -> Iterator[str]:
    """Parts of ``size`` to ``2 * size`` characters that end where ``boundary`` matches, or, failing that, anywhere."""
    start = 0
    while len(text) - start > 2 * size:
        found = boundary.search(text, start + size, start + 2 * size)
        stop = found.end() if found else start + 2 * size
        yield text[start:stop]
        start = stop
    yield text[start:]
