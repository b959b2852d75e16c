"""Which models a server offers beside its first: the files of folders, and references by names of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from sis_core.errors import SourceError
from sis_core.source import FileSource, Source

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
            path = _there(each)
            if each and path is not None and path.is_dir():
                folders.append(path)
                continue
            name, equals, reference = each.partition("=")
            if path is not None and path.is_file():
                name, reference = path.stem, each
            elif not equals:
                name, reference = each, each
            if not name or not reference:
                raise SourceError("a name or a reference is empty", where=f"--models {each}", fix="give NAME=REFERENCE")
            if name in references:
                raise SourceError(f"two models are called {name!r}", where="--models", fix="give NAME=REFERENCE")
            references[name] = reference
        return cls(tuple(folders), tuple(references.items()))

    def check(self, sources: Iterable[Source]) -> None:
        """SourceError for a reference that is no file and that no source knows. No model is fetched for it."""
        sources = [source for source in sources if not isinstance(source, FileSource)]
        for _, reference in self.references:
            addressed = ":" in reference or any(source.name == reference for source in sources)
            if addressed or _there(reference) or any(_knows(source, reference) for source in sources):
                continue
            raise SourceError(
                "no such folder or file, and no source knows it", where=f"--models {reference}", fix="check the path"
            )

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


def _there(reference: str) -> Path | None:
    """What is there of that name."""
    try:
        path = Path(reference).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL
        return None


def _knows(source: Source, reference: str) -> bool:
    try:
        if type(source).read is Source.read:
            return source.resolve(reference) is not None
        return source.read(reference, 0, 1) is not None
    except Exception:  # its business then: what is wrong with it is said when it is asked for
        return True
