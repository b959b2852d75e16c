"""A hub on loopback, for tests: it lists and serves repositories, and misbehaves as it is told.

Speaks what huggingface_hub and sis-hub ask for: ``/api/models/REPO/revision/REV?blobs=true`` and
``/REPO/resolve/REV/PATH`` with ranges; ``/files/NAME`` are plain files of the web.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SMALL = 1000  # bytes: a smaller file is no LFS file, as on the hub
PIECE = 1 << 14


@dataclass
class FakeRepo:
    """A repository: its files at one commit, and its card."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    licence: str | None = "apache-2.0"
    gated: bool = False
    revisions: tuple[str, ...] = ("main",)
    sha256: dict[str, str] = field(default_factory=dict)  # what the listing says where it lies


@dataclass
class FakeHub:
    """What the server has, and how it behaves.

    Attributes:
        token: needed for everything, when set.
        busy: answer that many requests with ``busy_status`` first.
        cut_after: close the connection after so many bytes of a file, each time.
        delay: seconds before each piece of 16 KiB.
        ignore_ranges: send the whole file whatever part is asked for.
        html: send a page in place of a file.
        storage: the address of another `FakeHub` that files are really at, as a hub has its storage elsewhere.
        requests: method, path and Range header of every request, in order.
    """

    repos: dict[str, FakeRepo] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    token: str = ""
    busy: int = 0
    busy_status: int = 429
    cut_after: int | None = None
    delay: float = 0.0
    ignore_ranges: bool = False
    html: bool = False
    storage: str = ""
    tokens: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def downloads(self) -> list[str]:
        """Paths of the files that were asked for."""
        return [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("range", "")))
        hub.tokens += [value for value in [self.headers.get("authorization")] if value]
        if hub.busy > 0:
            hub.busy -= 1
            self._answer(hub.busy_status, b"later", {"Retry-After": "0"})
        elif hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            self._answer(401, b"Invalid username or password.", {"X-Error-Message": "Invalid username or password."})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._listing(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = hub.repos.get(match[1])
            known = repo is not None and match[2] in (repo.commit, *repo.revisions)
            self._file(repo.files.get(match[3]) if repo and known else None, repo.commit if repo else "")
        else:
            self._file(hub.files.get(path.removeprefix("/files/")))

    do_HEAD = do_GET  # noqa: N815  # http.server's own spelling

    def _listing(self, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in (repo.commit, *repo.revisions):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif repo.gated and not self.headers.get("authorization"):
            self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            siblings = [_sibling(path, data, repo.sha256.get(path)) for path, data in repo.files.items()]
            card = {"license": repo.licence} if repo.licence else {}
            listing = {"id": name, "sha": repo.commit, "gated": "auto" if repo.gated else False, "cardData": card,
                       "siblings": siblings}  # fmt: skip
            self._answer(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _file(self, data: bytes | None, commit: str = "") -> None:
        if data is None:
            self._answer(404, b"no such file", {"X-Error-Code": "EntryNotFound"})
            return
        if self.hub.storage:
            self._answer(302, b"", {"Location": f"{self.hub.storage}{self.path}", "X-Repo-Commit": commit})
            return
        if self.hub.html:
            self._answer(200, b"<!DOCTYPE html><title>Log in</title>" + b" " * 600, {"Content-Type": "text/html"})
            return
        start, end = self._range(len(data))
        if start >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.headers.get("if-range", tag) != tag:
            start, end = 0, len(data)
        whole = (start, end) == (0, len(data))
        self.send_response(200 if whole else 206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", tag)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if not whole:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self._send(data[start:end])

    def _range(self, n: int) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if not match or self.hub.ignore_ranges:
            return 0, n
        return int(match[1]), min(n, int(match[2]) + 1) if match[2] else n

    def _send(self, data: bytes) -> None:
        cut = self.hub.cut_after
        for i in range(0, len(data), PIECE):
            if cut is not None and i >= cut:
                self.close_connection = True
                self.connection.close()
                return
            time.sleep(self.hub.delay)
            try:
                self.wfile.write(data[i : i + PIECE])
            except OSError:  # whoever asked was killed
                return

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _sibling(path: str, data: bytes, sha256: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": path, "size": len(data)}
    found["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if len(data) >= SMALL:
        digest = sha256 or hashlib.sha256(data).hexdigest()
        found["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
    return found


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub on a port of loopback; ``hub.url`` is its address."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
