"""Which models a server offers beside its first: the files of folders, and references by names of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from sis_core.errors import SourceError

PART = re.compile(
    r"(?P<stem>.+)-(?P<no>[0-9]{5})-of-[0-9]{5}", re.DOTALL
)  # of a split file, see `sis_core.gguf_file.shards`


@frozen
class Catalogue:
    """Names and what `sis_core.source.resolve` makes files of. Folders are looked through each time: files come and go.

    Attributes:
        folders: their GGUF files are offered by their names without the ending.
        references: by name; these come before files of the same name.
    """

    folders: tuple[Path, ...] = ()
    references: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, given: Iterable[str]) -> Catalogue:
        """From what a person writes: a folder, ``NAME=REFERENCE``, or a reference that is its own name.

        SourceError for one that is empty, and for two of one name.
        """
        folders: list[Path] = []
        references: dict[str, str] = {}
        for each in given:
            path = Path(each).expanduser()
            if each and path.is_dir():
                folders.append(path)
                continue
            name, equals, reference = each.partition("=")
            if path.is_file() or not equals:
                name, reference = path.stem if path.is_file() else each, each
            if not name or not reference:
                raise SourceError("a name or a reference is empty", where=f"--models {each}", fix="give NAME=REFERENCE")
            if name in references:
                raise SourceError(f"two models are called {name!r}", where="--models", fix="give NAME=REFERENCE")
            references[name] = reference
        return cls(tuple(folders), tuple(references.items()))

    def found(self) -> dict[str, str]:
        """What there is now: references by name. A folder that cannot be read offers nothing."""
        found = dict(self.references)
        for folder in self.folders:
            try:
                paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
            except OSError:
                continue
            for path in paths:
                part = PART.fullmatch(path.stem)
                if part is None or int(part["no"]) == 1:
                    found.setdefault(part["stem"] if part else path.stem, str(path))
        return found
