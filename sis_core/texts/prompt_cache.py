"""What was read of prompts, kept on disk for the next program: a folder of saved sequences.

A file holds one sequence: its token ids, and what the cache of a session has of it. Files of texts that begin with the
same page of tokens, read by the same model in the same way, lie in one folder, whose name is the hash of that; a file's
own name is the hash of all its tokens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from sis_core.backends.native.abi import ABI
from sis_core.cache.kv_types import saved_as
from sis_core.cache.pages import PAGE_SIZE
from sis_core.errors import SisError
from sis_core.loading.model import Model
from sis_core.texts.common import n_common

if TYPE_CHECKING:
    from sis_core.texts.scheduler import Scheduler

log = logging.getLogger(__name__)

MAGIC = b"sis prompt cache 1\n"
SUFFIX = ".kept"
MAX_HEADER = 4096
MAX_TOKENS = 1 << 24
DIGEST = hashlib.sha256().digest_size
BLOCK = 1 << 20
STALE = 3600.0  # seconds after which an unfinished file is nobody's any more
DEFAULT_MAX_BYTES = 4 << 30


class Kept(NamedTuple):
    """One file of a prompt cache.

    Attributes:
        model: its file's name.
        used: when it was last of use, in seconds since the epoch.
    """

    path: Path
    model: str
    n_tokens: int
    n_bytes: int
    used: float


class PromptCache:
    """A folder of saved sequences, which any number of programs may use at a time.

    A file appears whole or not at all, and one that was damaged is not used. The least recently used go first.

    Args:
        folder: made when first written to, for its owner alone: it holds what people wrote.
        max_bytes: that its files take at most.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if not os.fspath(folder):
            raise SisError("the folder's name is empty", where="prompt_cache", fix="name one, or leave it out")
        self.folder, self.max_bytes = Path(folder).expanduser(), max_bytes

    def recall(self, scheduler: Scheduler, tokens: Sequence[int]) -> list[int]:
        """Let a scheduler keep what is here of a text that begins like ``tokens``; its tokens, or none. A file that
        cannot be used is told in the log."""
        if (path := self.find(scheduler.session.model, tokens)) is None:
            return []
        try:
            known, data = self.read(path)
            scheduler.keep(known, data)
        except (OSError, ValueError, SisError) as error:
            log.warning("%s cannot be used: %s", path, error)
            return []
        return known

    def remember(self, scheduler: Scheduler, tokens: Sequence[int]) -> None:
        """Write what a scheduler keeps of a text that begins like ``tokens``. Where that cannot be, the log says so."""
        try:
            if (kept := scheduler.kept(tokens)) is not None:
                self.write(scheduler.session.model, *kept)
        except SisError as error:
            log.warning("%s", error)

    def find(self, model: Model, tokens: Sequence[int]) -> Path | None:
        """The file whose sequence begins most like ``tokens``; None when none shares a page."""
        shared: dict[Path, int] = {}
        for path in self._folder_of(model, tokens).glob(f"*{SUFFIX}"):
            with suppress(OSError, ValueError):
                shared[path] = n_common(_tokens_of(path), tokens)
        best = max(shared, key=lambda path: shared[path], default=None)
        return best if best is not None and shared[best] >= PAGE_SIZE else None

    def n_known(self, model: Model, tokens: Sequence[int]) -> int:
        """Tokens of the text that `recall` would find."""
        with suppress(OSError, ValueError):
            if (path := self.find(model, tokens)) is not None:
                return len(_tokens_of(path))
        return 0

    def read(self, path: Path) -> tuple[list[int], Iterator[bytes]]:
        """The tokens of a file, and what `Cache.load` takes; ValueError or OSError, at the latest after the last piece,
        when the file is damaged or gone."""
        tokens = _tokens_of(path)
        os.utime(path)
        return tokens, _checked(path)

    def write(self, model: Model, tokens: Sequence[int], pages: Iterable[bytes]) -> None:
        """Keep a sequence, unless it is shorter than a page or the beginning of one that is kept.

        SisError when the folder cannot be written to.
        """
        if len(tokens) < PAGE_SIZE:
            return
        folder = self._folder_of(model, tokens)
        known = self.find(model, tokens)
        if known is not None:
            with suppress(OSError, ValueError):
                if _tokens_of(known)[: len(tokens)] == list(tokens):
                    return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            name = hashlib.sha256(_packed(tokens)).hexdigest()[:32]
            _write_whole(folder / f"{name}{SUFFIX}", model.path.name, tokens, pages)
        except OSError as error:
            raise SisError(f"cannot be written: {error.strerror}", where=f"prompt cache {self.folder}") from None
        if known is not None:
            with suppress(OSError, ValueError):
                shorter = _tokens_of(known)
                if list(tokens[: len(shorter)]) == shorter:
                    known.unlink()
        self._sweep()

    def list(self) -> list[Kept]:
        """What it holds, the most recently used first."""
        found = []
        for path in self.folder.glob(f"*/*{SUFFIX}"):
            with suppress(OSError, ValueError), path.open("rb") as file:
                head, tokens, _ = _read_head(file)
                about = os.fstat(file.fileno())
                found.append(Kept(path, str(head["model"]), len(tokens), about.st_size, about.st_mtime))
        return sorted(found, key=lambda kept: -kept.used)

    def empty(self) -> int:
        """Delete all files; how many there were."""
        n = 0
        for path in list(self.folder.glob(f"*/*{SUFFIX}")):
            with suppress(FileNotFoundError):
                path.unlink()
                n += 1
        for folder in list(self.folder.glob("*/")):
            if len(folder.name) == 32:
                shutil.rmtree(folder, ignore_errors=True)
        return n

    def _folder_of(self, model: Model, tokens: Sequence[int]) -> Path:
        first = _packed(tokens[:PAGE_SIZE])
        return self.folder / hashlib.sha256(_key(model) + first).hexdigest()[:32]

    def _sweep(self) -> None:
        """Delete what is over the limit, and what programs that were killed left behind."""
        total = 0
        for kept in self.list():
            total += kept.n_bytes
            if total > self.max_bytes:
                with suppress(OSError):
                    kept.path.unlink()
        for path in self.folder.glob("*/.*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink()


def _key(model: Model) -> bytes:
    """What the bytes of a cache depend on: the model, how it was loaded, and who computes it."""
    digest = hashlib.sha256(model.fingerprint.encode())
    kv_type = saved_as(model.options.kv_type)
    how = (model.config, kv_type, model.backend, model.grains, model.layers, ABI, platform.machine())
    digest.update(repr(how).encode())
    return digest.digest()


def _tokens_of(path: Path) -> list[int]:
    with path.open("rb") as file:
        return _read_head(file)[1]


def _packed(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, "<i4").tobytes()


def _write_whole(path: Path, model: str, tokens: Sequence[int], pages: Iterable[bytes]) -> None:
    head = json.dumps({"model": model, "n_tokens": len(tokens)}).encode() + b"\n"
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".")  # mkstemp makes it 0600
    try:
        digest = hashlib.sha256()
        with open(number, "wb") as file:
            for piece in (MAGIC, head, _packed(tokens)):
                file.write(piece)
                digest.update(piece)
            for piece in pages:
                file.write(piece)
                digest.update(piece)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _read_head(file: IO[bytes]) -> tuple[dict[str, object], list[int], hashlib._Hash]:
    """What a file says of itself, its tokens, and the digest so far; ValueError when it is none of ours."""
    magic, line = file.read(len(MAGIC)), file.readline(MAX_HEADER)
    if magic != MAGIC:
        raise ValueError("not a kept prompt")
    head = json.loads(line)
    n = head["n_tokens"] if isinstance(head, dict) and "model" in head else None
    if not isinstance(n, int) or not 0 < n < MAX_TOKENS:
        raise ValueError("not a kept prompt")
    ids = file.read(4 * n)
    if len(ids) < 4 * n:
        raise ValueError("cut off")
    digest = hashlib.sha256(magic + line + ids)
    return head, np.frombuffer(ids, "<i4").tolist(), digest


def _checked(path: Path) -> Iterator[bytes]:
    """What a file has after its tokens, without the digest, which is held against it at the end."""
    with path.open("rb") as file:
        _, _, digest = _read_head(file)
        left = os.fstat(file.fileno()).st_size - file.tell() - DIGEST
        while left > 0 and (piece := file.read(min(BLOCK, left))):
            left -= len(piece)
            digest.update(piece)
            yield piece
        if left or file.read() != digest.digest():
            raise ValueError("damaged")
