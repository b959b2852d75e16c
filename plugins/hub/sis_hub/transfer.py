"""HTTP: asking for the rest of a file, again and again while anything arrives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from sis_core.errors import SourceError
from sis_hub.arriving import Arriving, WrongContentError
from sis_hub.remote import Patience, Remote

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

AGAIN = (408, 429, 500, 502, 503, 504)


def fetch(remote: Remote, arrived: Arriving, patience: Patience) -> None:
    """Ask for what is missing until it is there, again and again while anything arrives."""
    import httpx2

    attempt = 0
    while arrived.total is None or arrived.n_bytes < arrived.total:
        before, asked, reason = arrived.n_bytes, None, ""
        try:
            with _get(remote, arrived.n_bytes, patience) as response:
                if response.status_code in AGAIN:
                    asked, reason = response.headers.get("retry-after"), status_text(response)
                else:
                    _receive(response, remote, arrived)
                    if arrived.total is None:
                        return  # the server never said how long it is, and has closed the stream in order
        except (httpx2.TransportError, httpx2.StreamError) as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if arrived.total is not None and arrived.n_bytes >= arrived.total:
            return
        attempt = 1 if arrived.n_bytes > before else attempt + 1
        if attempt >= patience.tries:
            raise SourceError(
                f"the download broke off at {arrived.n_bytes:,} of {arrived.total or '?'} bytes: "
                f"{reason or 'cut short'}",
                where=remote.name,
                fix="the same command goes on from there",
            )
        log.info("%s: %s; trying again from byte %d", remote.name, reason or "cut short", arrived.n_bytes)
        patience.wait(attempt, asked)


@contextmanager
def _get(remote: Remote, start: int, patience: Patience) -> Iterator[httpx2.Response]:
    headers = {"accept-encoding": "identity", **remote.headers}
    if start:
        headers["range"] = f"bytes={start}-"
        if remote.tag:
            headers["if-range"] = remote.tag
    with _stream(remote, headers, patience.timeout) as response:
        yield response


@contextmanager
def _stream(remote: Remote, headers: Mapping[str, str], timeout: float) -> Iterator[httpx2.Response]:
    """An open answer. SourceError for an address that cannot be asked at all, or must not (HF_HUB_OFFLINE)."""
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    hush()
    try:
        with get_session().stream("GET", remote.url, headers=dict(headers), timeout=timeout) as response:
            yield response
    except OfflineModeIsEnabled:
        raise SourceError(
            "is not here, and HF_HUB_OFFLINE forbids asking for it", where=remote.name, fix="unset HF_HUB_OFFLINE"
        ) from None
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
        raise SourceError(f"the address cannot be asked: {error}", where=remote.name, fix="check it") from None


def _receive(response: httpx2.Response, remote: Remote, arrived: Arriving) -> None:
    if response.status_code == 416:
        arrived.restart()  # what is there is longer than the file, or belongs to another one
        return
    refuse_status(response, remote.name)
    if remote.tag and response.headers.get("etag", remote.tag) != remote.tag:
        raise WrongContentError("the file changed where it is while it was downloaded", "try again")
    if response.status_code != 206 or not _continues(response, arrived.n_bytes):
        arrived.restart()
    if arrived.total is None and response.headers.get("content-length", "").isdecimal():
        arrived.total = arrived.n_bytes + int(response.headers["content-length"])
    for chunk in response.iter_raw():
        arrived.write(chunk)


def _continues(response: httpx2.Response, start: int) -> bool:
    if not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
        raise WrongContentError("the server sent another part of the file than it was asked for", "try again")
    return True


def refuse_status(response: httpx2.Response, name: str) -> None:
    """SourceError for an answer that is not the file, with what can be done about it."""
    status = response.status_code
    if status in (200, 206):
        return
    fix = {
        401: "log in (`hf auth login`), or set HF_TOKEN",
        403: "accept the model's terms on its page, and log in (`hf auth login`) or set HF_TOKEN",
        404: "check the name; a private model looks like this too: log in (`hf auth login`), or set HF_TOKEN",
        407: "check the proxy's name and password in HTTPS_PROXY",
    }.get(status, "try again later")
    raise SourceError(f"the server answered {status_text(response)}", where=name, fix=fix)


def status_text(response: httpx2.Response) -> str:
    """An answer's number and phrase."""
    return f"{response.status_code} {response.reason_phrase}".strip()


def hush() -> None:
    """Keep the HTTP libraries from logging addresses: those that a hub redirects to are signed, and so secret."""
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def read_range(remote: Remote, start: int, n: int, patience: Patience) -> bytes:
    """``n`` bytes of a file from ``start`` on, or fewer where it ends.

    Raises:
        SourceError: they cannot be had, or the server sends only whole files.
    """
    return _ranged(remote, start, n, patience)[0]


def probe(remote: Remote, patience: Patience) -> Remote:
    """The same file with what its server says of its length and version."""
    _, headers = _ranged(remote, 0, 1, patience, whole=True)
    total = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
    tag = headers.get("etag", "")
    return evolve(
        remote,
        n_bytes=int(total) if total.isdecimal() else None,
        tag="" if tag.startswith("W/") else tag,  # a weak one does not promise the same bytes
    )


def _ranged(
    remote: Remote, start: int, n: int, patience: Patience, *, whole: bool = False
) -> tuple[bytes, Mapping[str, str]]:
    """A part of a file and the answer's headers; with ``whole`` a server may send all of it, of which none is read."""
    import httpx2

    headers = {"accept-encoding": "identity", **remote.headers, "range": f"bytes={start}-{start + n - 1}"}
    for attempt in range(1, patience.tries + 1):
        asked = None
        try:
            with _stream(remote, headers, patience.timeout) as response:
                if response.status_code == 416:
                    return b"", response.headers
                if response.status_code not in AGAIN:
                    refuse_status(response, remote.name)
                    if response.status_code == 206 or not (start or whole):
                        return _at_most(response, n), response.headers
                    if whole:
                        return b"", response.headers
                    raise SourceError("its server sends only whole files", where=remote.name, fix="`sis pull` it first")
                asked, reason = response.headers.get("retry-after"), status_text(response)
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
        if attempt < patience.tries:
            patience.wait(attempt, asked)
    raise SourceError(f"its server cannot be asked: {reason}", where=remote.name, fix="check the network and the proxy")


def _at_most(response: httpx2.Response, n: int) -> bytes:
    found = bytearray()
    for chunk in response.iter_raw():
        found += chunk
        if len(found) >= n:
            break
    return bytes(found[:n])
