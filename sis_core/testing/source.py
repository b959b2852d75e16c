"""`check_source`: what every source must keep to, wherever its models come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from sis_core.errors import SisError
from sis_core.source import FileSource, Listing, Source, resolve

MAGIC = b"GGUF"
STRANGE = (
    "no model has this name",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b:c",
    "https://example.invalid/model.gguf",
    "\0",
    "\n",
    "ü" * 10,
    "x" * 5000,
    "*",
    " ",
    "~",
)
"""References that no source knows, among them the ones that joined to a path or used as a pattern do harm."""


def check_source(source: Source, /, *known: str) -> None:
    """Hold a source to the contract of `sis_core.source`.

    Args:
        known: references (without ``NAME:``) that the source has now, at least one unless it is the default source.

    Raises:
        AssertionError: naming the source, the fault, and the reference with which it showed.
    """
    check = _Check(source)
    check.itself()
    assert known or source.default, f"{check.title}: nothing would be tested; give check_source a reference it knows"
    for reference in (*known, *([""] if source.default else [])):
        check.known(reference)
    for reference in STRANGE:
        check.unknown(reference)
    if not source.default:
        check.unknown("")
    check.listing()


class _Check:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.title = f"source {getattr(source, 'name', type(source).__name__)}"

    def fail(self, fault: str, reference: str) -> NoReturn:
        shown = repr(reference) if len(reference) < 80 else f"a name of {len(reference)} characters"
        raise AssertionError(f"{self.title}: {fault} (reference {shown})")

    def itself(self) -> None:
        """Name and default: what the program looks at before it asks for a model."""
        name = getattr(self.source, "name", None)
        assert isinstance(name, str), f"{self.title}: has no name"
        assert name, f"{self.title}: has an empty name"
        assert not re.search(r"[:/\\\s]", name), (
            f"{self.title}: its name cannot be typed: NAME:MODEL has no space, slash or colon in NAME"
        )
        default = self.source.default
        assert isinstance(default, bool), f"{self.title}: default is {default!r}, not True or False"

    def known(self, reference: str) -> None:
        found = self.ask(reference)
        if found is None:
            self.fail("does not know a model that it should have", reference)
        if not found.is_file():
            self.fail(f"gave {found}, which is not a file: raise a SourceError that says what is missing", reference)
        with found.open("rb") as file:
            start = file.read(len(MAGIC))
        if start != MAGIC:
            self.fail(f"gave {found}, which is not a GGUF file: a source verifies what it gives", reference)
        if not found.is_absolute():
            self.fail(f"gave {found}, which means another file in another folder: give an absolute path", reference)
        if self.ask(reference) != found:
            self.fail(f"gave {found}, and another file when asked again", reference)
        typed = f"{self.source.name}:{reference}"
        if resolve(typed, [FileSource(), self.source]) != found:
            self.fail(f"is not found by the name {typed!r}", reference)
        read = self.source.read(reference, 0, len(MAGIC))
        if read not in (None, MAGIC):
            self.fail(f"reads {read!r} where the file begins with {MAGIC!r}", reference)

    def listing(self) -> None:
        """What the source says that is here, is; what it never had, it cannot remove."""
        for listing in self.source.list():
            if not isinstance(listing, Listing) or not listing.path.is_file() or listing.n_bytes <= 0:
                self.fail(f"lists {listing!r}, which is not a file that is here", getattr(listing, "name", ""))
            if self.ask(listing.name) != listing.path:
                self.fail(f"lists {listing.path}, but resolves its name to another file", listing.name)
        if self.source.remove(STRANGE[0]):
            self.fail("says that it removed a model that it never had", STRANGE[0])

    def unknown(self, reference: str) -> None:
        try:
            found = self.ask(reference)
        except SisError:
            return  # a source may also say that a name is none of its own, or that it cannot look it up now
        if found is not None:
            self.fail(f"gave {found} for a name that it cannot know: return None", reference)

    def ask(self, reference: str) -> Path | None:
        try:
            found = self.source.resolve(reference)
        except SisError as error:
            if not (error.what and error.where):
                self.fail(f"raised {type(error).__name__} without saying where: {error}", reference)
            raise
        except Exception as error:
            self.fail(f"raised {type(error).__name__}, not a SisError: {str(error)[:200]}", reference)
        if found is not None and not isinstance(found, Path):
            self.fail(f"returned {type(found).__name__}, not a Path or None", reference)
        return found
