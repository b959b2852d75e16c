"""Where models come from: a name, path or address becomes a local, verified file."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from attrs import field, frozen

from sis_core.errors import SisError, SourceError, blaming, package_for

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called now and then during long work with what is done and what there is in all: bytes, rows or cases."""


@frozen
class Listing:
    """A model that a source has on this machine.

    Attributes:
        name: what `Source.resolve` and `Source.remove` know it by.
        path: its file, or the first of its files.
        n_bytes: of all its files.
        licence: as its publisher names it, or empty where nobody said.
    """

    name: str
    path: Path
    n_bytes: int
    licence: str = ""


@frozen
class Preset:
    """What whoever offers a model has set for it: used where the user says nothing else.

    Attributes:
        system: the message that a chat without one begins with.
        options: those of samplers, by the names that `LanguageModel.request` takes.
        stop: texts that a text ends before.
        n_ctx: the context that it is offered with.
    """

    system: str = ""
    options: Mapping[str, Any] = field(factory=dict)
    stop: tuple[str, ...] = ()
    n_ctx: int | None = None


class Source(ABC):
    """One place that models come from.

    Attributes:
        name: unique among sources; ``NAME`` or ``NAME:rest`` on the command line goes to this source alone.
        default: True for the source that is used when no model is named. Only one installed source may say so.
    """

    name: ClassVar[str]
    default: ClassVar[bool] = False

    @abstractmethod
    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The local file for ``reference``, or None when it is not this source's business.

        Called once per load, with what the user typed (without ``NAME:``), empty for the default model. A source
        that should have the file but cannot give it raises SourceError. One that fetches tells ``progress`` the bytes.
        """

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """At most ``n`` bytes of the file from ``start`` on, without fetching the rest; None where that cannot be done.

        For looking at a model's header before it is fetched. Raises what `resolve` does.
        """
        return None

    def preset(self, reference: str) -> Preset | None:
        """What is set for the model that `resolve` gives for ``reference``, or None. Never asks the network."""
        return None

    def list(self) -> Iterable[Listing]:
        """The models that are here. Never asks the network."""
        return ()

    def remove(self, name: str) -> bool:
        """Delete a model that `list` names, with what nothing else needs; False when there is none of that name."""
        return False


class FileSource(Source):
    """A path on this machine."""

    name = "file"

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        return Path(reference).expanduser() if reference else None


def is_model_file(reference: str | None) -> bool:
    """Whether a reference is a file that is here and is called ``.gguf``: no source is asked about that."""
    try:
        path = Path(reference or "").expanduser()
        return path.suffix.lower() == ".gguf" and path.is_file()
    except (OSError, RuntimeError, ValueError):  # what `resolve` refuses
        return False


def resolve(reference: str | None, sources: Sequence[Source], progress: Progress | None = None) -> Path:
    """The local file for what the user typed; None for the default model.

    A path that exists always wins over a source of the same name; one that is not called ``.gguf`` is offered to the
    sources as an absolute path first. SourceError when nobody knows the reference.
    """
    if reference is None:
        return _default(sources, progress)
    if not reference:
        raise SourceError("the model's name is empty", where="model", fix="name a file, or none for the default model")
    try:
        path = Path(reference).expanduser()
        if is_model_file(reference):
            return path
        if path.exists():
            return _made_of(path, sources, progress) or path
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a NUL
        raise SourceError(f"is not a usable path: {error}", where=reference[:80]) from None
    name, colon, rest = reference.partition(":")
    for source in sources:
        if source.name == name and (colon or source.name == reference):
            found = _ask(source, rest, progress)
            if found is None:
                raise SourceError(f"the source {name!r} has no model {rest!r}", where=reference)
            return found
    for source in sources:
        if isinstance(source, FileSource):
            continue
        try:
            found = _ask(source, reference, progress)
        except _FailedError as failed:  # not known to be its business: the others are asked as well
            log.warning("%s", failed)
            continue
        if found is not None:
            return found
    if package := package_for("sources", name):
        raise SourceError(
            "no such file, and no installed source of that name", where=reference, fix=f"`pip install {package}`"
        )
    return path  # opening it says why it cannot be read


def preset_for(reference: str | None, sources: Sequence[Source]) -> Preset:
    """What a source has set for the model that `resolve` finds with the same sources; nothing where none has, or where
    one fails."""
    for source in sources:
        name, colon, rest = (reference or "").partition(":")
        asked = rest if colon and name == source.name else reference or ""
        try:
            with blaming(_FailedError, f"the source {source.name!r}", asked):
                found = source.preset(asked)
        except SisError as failed:
            log.warning("what is set for the model is not used: %s", failed)
            continue
        if found is not None:
            return found
    return Preset()


class _FailedError(SourceError):
    """A source whose own code failed."""


def _ask(source: Source, reference: str, progress: Progress | None) -> Path | None:
    with blaming(_FailedError, f"the source {source.name!r}", reference):
        return source.resolve(reference, progress)


def each_once(listings: Iterable[Listing]) -> list[Listing]:
    """Models in order, a file that several sources list only once, by its shortest name."""
    found: dict[Path, Listing] = {}
    for listing in listings:
        known = found.get(listing.path)
        if known is None or len(listing.name) < len(known.name):
            found[listing.path] = listing
    return list(found.values())


def _made_of(path: Path, sources: Sequence[Source], progress: Progress | None) -> Path | None:
    """What a source makes of a file or folder that may be a model of another kind; None when none knows it."""
    for source in sources:
        if not isinstance(source, FileSource) and (found := source.resolve(str(path.absolute()), progress)) is not None:
            return found
    return None


def _default(sources: Sequence[Source], progress: Progress | None) -> Path:
    defaults = [source for source in sources if source.default]
    if not defaults:
        raise SourceError(
            "no model was named and no installed package brings one",
            where="--model",
            fix="name a file with -m model.gguf, or `pip install sis-tiny` for the built-in model",
        )
    if len(defaults) > 1:
        packages = " and ".join(type(source).__module__.partition(".")[0] for source in defaults)
        raise SourceError(
            f"two sources say that theirs is the default model: {packages}",
            where="--model",
            fix="name one with -m, or uninstall one of these packages",
        )
    found = _ask(defaults[0], "", progress)
    if found is None:
        raise SourceError(f"the source {defaults[0].name!r} gave no default model", where="--model")
    return found
