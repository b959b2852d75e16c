"""The source ``https``: a GGUF file, or the first part of a split one, at any address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from sis_core.errors import SourceError
from sis_core.source import Progress, Source
from sis_hub.download import check_space, download
from sis_hub.folders import cache_folder
from sis_hub.hub import HubSource
from sis_hub.kept import Kept, file_name
from sis_hub.listing import HashedListing
from sis_hub.quant_choice import PART
from sis_hub.reference import parse_hub_reference
from sis_hub.remote import Patience, Remote
from sis_hub.transfer import probe, read_range

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class WebSource(Source):
    """``https://host/model.gguf``. Addresses of the hub's pages are the hub's.

    A file that was downloaded is used without asking again. Nothing but its own server vouches for it; its SHA-256 is
    noted, so that `sis verify` finds what changed on this disk.

    Args:
        hub: for addresses on the hub's host.
        folder: where files are kept; by default ``web`` in sis's cache.
    """

    name = "https"

    def __init__(self, hub: HubSource, folder: Path | None = None, patience: Patience | None = None) -> None:
        self._hub, self._folder, self._patience = hub, folder, patience or Patience()

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The downloaded file; downloaded now if it is not here.

        Raises:
            SourceError: it cannot be had, or is no GGUF file.
        """
        url = _address(reference)
        if url is None:
            return None
        if parse_hub_reference(url.geturl()):
            return self._hub.resolve(url.geturl(), progress)
        path = self._place(url)
        if not all(path.with_name(name).exists() for name, _ in _parts(url)):
            self._pull(url, path.parent, progress)
        return path

    def pull(self, reference: str, progress: Progress | None = None) -> Path | None:
        """As `resolve`; a page of the hub's is asked for what it has now."""
        url = _address(reference)
        if url is not None and parse_hub_reference(url.geturl()):
            return self._hub.pull(url.geturl(), progress)
        return self.resolve(reference, progress)

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """``n`` bytes from ``start`` on, or fewer at the end, without downloading the rest.

        Raises:
            SourceError: they cannot be had.
        """
        url = _address(reference)
        if url is None:
            return None
        if parse_hub_reference(url.geturl()):
            return self._hub.read(url.geturl(), start, n)
        if (path := self._place(url)).exists():
            with path.open("rb") as file:
                file.seek(start)
                return file.read(n)
        return read_range(_remote(url, path.name), start, n, self._patience)

    def list(self) -> Iterator[HashedListing]:
        """What was downloaded."""
        return self._kept.list()

    def remove(self, name: str) -> bool:
        """Remove what was downloaded from an address."""
        url = _address(name)
        return url is not None and self._kept.remove(_shown(url))

    @property
    def _kept(self) -> Kept:
        return Kept(self._folder or cache_folder() / "web")

    def _place(self, url: SplitResult) -> Path:
        address = _without_secrets(url)._replace(query=url.query)
        return self._kept.place(address.geturl()) / file_name(unquote(url.path))

    def _pull(self, url: SplitResult, folder: Path, progress: Progress | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remotes = {name: probe(_remote(address, name), self._patience) for name, address in _parts(url)}
        missing = sum(remote.n_bytes or 0 for name, remote in remotes.items() if not (folder / name).exists())
        check_space(folder, missing, _shown(url))
        hashes = {
            name: download(remote, folder / name, progress=progress, patience=self._patience)
            for name, remote in remotes.items()
        }
        self._kept.note(folder, _shown(url), hashes)


def _address(reference: str) -> SplitResult | None:
    """The address that a reference is; with ``//`` in front it has lost its ``https:``."""
    text = f"https:{reference}" if reference.startswith("//") else reference
    if not text.lower().startswith(("https://", "http://")):
        return None
    try:
        url = urlsplit(text)
        host = url.hostname
    except ValueError as error:
        raise SourceError(f"is not an address: {error}", where=text[:100]) from None
    if not host or any(not c.isprintable() or c == " " for c in text):
        raise SourceError("is not an address", where=repr(text[:100]), fix="copy it again from the page")
    if url.scheme == "http" and host not in LOOPBACK:
        raise SourceError(
            "http sends a model unprotected: anyone between could change it", where=_shown(url), fix="use https://"
        )
    return url


def _without_secrets(url: SplitResult) -> SplitResult:
    host = url.netloc.rpartition("@")[2]
    return url._replace(netloc=host, query="", fragment="")


def _shown(url: SplitResult) -> str:
    """The address without what may be a password or a signature."""
    return urlunsplit(_without_secrets(url))


def _parts(url: SplitResult) -> list[tuple[str, SplitResult]]:
    """File names and addresses: one, or all parts when the address is that of a split model's first."""
    name = file_name(unquote(url.path))
    split = PART.fullmatch(name)
    end = f"-{split['no']}-of-{split['count']}.gguf" if split else ""
    if not split or int(split["no"]) != 1 or not url.path.endswith(end):
        return [(name, url)]
    found = []
    for no in range(1, int(split["count"]) + 1):
        part = f"-{no:05}-of-{split['count']}.gguf"
        found.append((split["stem"] + part, url._replace(path=url.path.removesuffix(end) + part)))
    return found


def _remote(url: SplitResult, name: str) -> Remote:
    return Remote(url._replace(fragment="").geturl(), f"{url.scheme}://{url.hostname}/…/{name}", gguf=True)
