"""Text whose white space at the borders belongs to the template until something else follows."""

from __future__ import annotations

from sis_chat.replies.reader import Emit


class Trimmed:
    """Text whose white space at the borders is held back until it is known what comes next."""

    def __init__(self, emit: Emit, *, strip: bool) -> None:
        self._emit, self._strip = emit, strip
        self._space = ""
        self.at_start = True

    def begin(self, *, strip: bool) -> None:
        self._space, self._strip, self.at_start = "", strip, True

    def push(self, text: str) -> None:
        body = text.rstrip()
        if body:
            if self.at_start and self._strip:
                self._space, body = "", body.lstrip()
            self._emit(self._space + body)
            self._space, self.at_start = text[len(text.rstrip()) :], False
        else:
            self._space += text

    def close(self) -> None:
        """Something else begins: the white space before it was the template's."""
        self._space = ""

    def flush(self) -> None:
        """Nothing more comes."""
        if self._space and not (self.at_start and self._strip):
            self._emit(self._space)
        self._space = ""
