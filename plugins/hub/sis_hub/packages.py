"""The source ``pkg``: a model that an installed Python package carries."""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from attrs import frozen

from sis_core.errors import SourceError
from sis_core.source import Progress, Source
from sis_hub.listing import HashedListing, listed
from sis_hub.quant_choice import PART
from sis_hub.verify import check_hash

QUICKLY_HASHED = 1 << 28  # bytes: larger files are hashed by `sis verify` only


class PackageSource(Source):
    """``pkg://distribution/file.gguf``: the path inside the distribution, or its unique end; empty for its only model.

    The package's own record of its files says what their SHA-256 must be.
    """

    name = "pkg"

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The file inside the installed package.

        Raises:
            SourceError: the package is not installed, has no such file, or the file is damaged.
        """
        parsed = _parse(reference)
        if parsed is None:
            return None
        distribution, wanted = parsed
        where = f"pkg://{distribution}/{wanted}".rstrip("/")
        try:
            found = metadata.distribution(distribution)
        except (metadata.PackageNotFoundError, ValueError):
            raise SourceError(
                f"the package {distribution!r} is not installed", where=where, fix=f"`pip install {distribution}`"
            ) from None
        chosen = _choose(_models(found), wanted, where)
        _check(chosen, where, _reinstall(distribution))
        return chosen.path

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """``n`` bytes of the file from ``start`` on, or fewer at its end."""
        path = self.resolve(reference)
        if path is None:
            return None
        with path.open("rb") as file:
            file.seek(start)
            return file.read(n)

    def list(self) -> Iterator[HashedListing]:
        """Every model in an installed package."""
        seen: set[Path] = set()
        for distribution in metadata.distributions():
            name, licence = distribution.metadata["Name"], _licence(distribution)
            for model in _models(distribution):
                if model.path not in seen and model.path.is_file():
                    seen.add(model.path)
                    hashes = {model.path: model.sha256} if model.sha256 else {}
                    yield listed(f"pkg://{name}/{model.name}", [model.path], licence, hashes)

    def remove(self, name: str) -> bool:
        """Never: what pip brought, pip takes away.

        Raises:
            SourceError: it is a package's model.
        """
        parsed = _parse(name)
        if parsed is None:
            return False
        raise SourceError("belongs to a package", where=name, fix=f"`pip uninstall {parsed[0]}` removes it")


def _parse(reference: str) -> tuple[str, str] | None:
    """Distribution and path."""
    scheme, separator, rest = reference.partition("//")
    if not separator or scheme not in ("", "pkg:"):
        return None
    distribution, _, path = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", distribution):
        raise SourceError(
            f"{distribution[:80]!r} is not a package's name", where=reference[:200],
            fix="write pkg://distribution/file.gguf",
        )  # fmt: skip
    return distribution, path


@frozen
class _Model:
    """A GGUF file of a distribution: its path inside, where it lies, and what the record says of it."""

    name: str
    path: Path
    n_bytes: int | None = None
    sha256: str = ""


def _models(distribution: metadata.Distribution) -> Sequence[_Model]:
    """The GGUF files of a distribution; of a split one the first part."""
    if ".gguf" not in (distribution.read_text("RECORD") or "").lower():  # most have none: do not take records apart
        return _in_source_tree(distribution)
    return [
        _Model(str(path), Path(str(path.locate())).resolve(), path.size, _sha256(path))
        for path in distribution.files or ()
        if _is_model(path.name)
    ]


def _in_source_tree(distribution: metadata.Distribution) -> Sequence[_Model]:
    """The models of an editable install, whose record lists none: those in the package that is named like it."""
    if '"editable"' not in (distribution.read_text("direct_url.json") or ""):
        return []
    spec = importlib.util.find_spec(re.sub(r"[-.]+", "_", distribution.metadata["Name"]).lower())
    found = [
        _Model(path.relative_to(Path(folder).parent).as_posix(), path.resolve())
        for folder in (spec.submodule_search_locations or () if spec else ())
        for path in sorted(Path(folder).rglob("*.gguf"))
    ]
    return [model for model in found if _is_model(model.path.name)]


def _is_model(name: str) -> bool:
    split = PART.fullmatch(name)
    return name.lower().endswith(".gguf") and (not split or int(split["no"]) == 1)


def _choose(models: Sequence[_Model], wanted: str, where: str) -> _Model:
    exact = [model for model in models if model.name == wanted]
    found = exact or [model for model in models if not wanted or f"/{model.name}".endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    known = ", ".join(model.name for model in models) or "none"
    what = f"{wanted!r} ends the names of {len(found)} models" if found else f"the package has no model {wanted!r}"
    raise SourceError(what, where=where, fix=f"it has: {known}")


def _licence(distribution: metadata.Distribution) -> str:
    about = distribution.metadata
    stated = [about[key] for key in ("License-Expression", "License") if key in about]
    return stated[0].partition("\n")[0] if stated else ""


def _sha256(path: metadata.PackagePath) -> str:
    """What the package's record says, in hexadecimal; empty where it says nothing (an editable install)."""
    if path.hash is None or path.hash.mode != "sha256":
        return ""
    value = path.hash.value
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()


def _check(model: _Model, where: str, fix: str) -> None:
    """Length, and hash where that takes no time a user would notice."""
    if not model.path.is_file():
        raise SourceError(f"{model.path} is missing", where=where, fix=fix)
    size = model.path.stat().st_size
    if model.n_bytes is not None and size != model.n_bytes:
        raise SourceError(f"has {size} bytes, not {model.n_bytes}", where=where, fix=fix)
    if model.sha256 and size <= QUICKLY_HASHED:
        check_hash(model.path, model.sha256, where=where, fix=fix)


def _reinstall(distribution: str) -> str:
    return f"install it again: `pip install --force-reinstall {distribution}`"
