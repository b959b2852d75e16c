"""All models on this machine, whatever source they are from."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from sis_core.errors import SourceError
from sis_core.source import Listing, Source, each_once


def inventory(sources: Sequence[Source]) -> list[Listing]:
    """Every model that a source has here, each file once, by its shortest name."""
    return each_once(listing for source in sources for listing in source.list())


def find(name: str, among: Sequence[Listing]) -> Listing:
    """The model of that name.

    Raises:
        SourceError: there is none; the message has the closest.
    """
    for listing in among:
        if listing.name == name:
            return listing
    raise _unknown(name, among)


def remove(name: str, sources: Sequence[Source]) -> None:
    """Remove a model from whichever source has it.

    Raises:
        SourceError: none has it, or it is not ours to remove.
    """
    for source in sources:
        if source.remove(name):
            return
    raise _unknown(name, inventory(sources))


def _unknown(name: str, among: Sequence[Listing]) -> SourceError:
    close = get_close_matches(name, [listing.name for listing in among], 1, 0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return SourceError(f"no such model is here{hint}", where=name, fix="`sis list` shows what is")
