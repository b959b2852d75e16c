"""Other answers in some places of a file: it is written anew beside it, and takes its name when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sis_core.errors import SourceError


class Mending:
    """A context manager: at its end the file has the new answers; after an error, or a kill, it is as it was.

    Args:
        path: of the file of answers.
        places: of the answers that others take the place of, rising; the first answer's is 0.
    """

    def __init__(self, path: Path, places: Iterable[int]) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.part")
        self._places = iter(places)
        self._at = -1  # the heading's place

    def write(self, answer: bytes) -> None:
        """The answer in the next of the places; SourceError when the disk is full."""
        place = next(self._places)
        try:
            while self._at < place:
                self._new.write(self._old.readline())
                self._at += 1
            self._old.readline()
            self._at += 1
            self._new.write(answer + b"\n")
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Self:
        try:
            self._old = self._path.open("rb")
            self._new = self._beside.open("wb")
        except OSError as error:
            raise self._refused(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._old:
            try:
                with self._new:
                    if kind is None:
                        shutil.copyfileobj(self._old, self._new)
                        self._new.flush()
                        os.fsync(self._new.fileno())
                if kind is None:
                    shutil.copymode(self._path, self._beside)
                    os.replace(self._beside, self._path)
            except OSError as failed:
                raise self._refused(failed) from None
            finally:
                with suppress(OSError):
                    self._beside.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> SourceError:
        return SourceError(
            f"cannot be written: {error.strerror}", where=str(self._path), fix="the same command goes on from here"
        )
