"""The cache that huggingface_hub keeps, shared with it: what one of the two has downloaded, the other finds.

    models--USER--NAME/blobs/HASH               the bytes, named by their SHA-256 (or git hash, for small files)
    models--USER--NAME/snapshots/COMMIT/PATH    a link to them
    models--USER--NAME/refs/REVISION            the commit that a branch or tag was when it was last asked for

The layout is documented at https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from sis_core.errors import SourceError

MODEL_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDER = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


@frozen
class HubCache:
    """The folder with the caches of all repositories."""

    path: Path

    def repo(self, repo: str) -> RepoCache:
        """The part that belongs to one repository, which need not be there."""
        owner, _, name = repo.partition("/")
        return RepoCache(
            repo, self.path / f"models--{owner}--{name}", self.path / ".locks" / f"models--{owner}--{name}"
        )

    def repos(self) -> Iterator[RepoCache]:
        """Every repository that has something here, by name."""
        if self.path.is_dir():
            for folder in sorted(self.path.iterdir()):
                if match := _FOLDER.fullmatch(folder.name):
                    yield self.repo(f"{match['owner']}/{match['name']}")


@frozen
class RepoCache:
    """One repository's folder."""

    repo: str
    path: Path
    locks: Path

    def commit(self, revision: str) -> str:
        """The commit that ``revision`` was when last asked for; empty when it never was."""
        if _COMMIT.fullmatch(revision):
            return revision
        try:
            return (self.path / "refs" / revision).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def snapshot(self, commit: str) -> Path:
        """The folder of one commit."""
        return self.path / "snapshots" / commit

    def snapshots(self) -> Iterator[tuple[str, Path]]:
        """Commit and folder of every snapshot, the newest first."""
        folder = self.path / "snapshots"
        found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            yield path.name, path

    def files(self, commit: str) -> dict[str, int]:
        """The files of a snapshot that are wholly here: path in the repository -> bytes."""
        root = self.snapshot(commit)
        if not root.is_dir():
            return {}
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}

    def revisions(self, commit: str) -> list[str]:
        """Branches and tags that were this commit when last asked for."""
        refs = self.path / "refs"
        if not refs.is_dir():
            return []
        names = [path.relative_to(refs).as_posix() for path in sorted(refs.rglob("*")) if path.is_file()]
        return [name for name in names if self.commit(name) == commit]

    def blob(self, name: str) -> Path:
        """Where the bytes of that hash belong."""
        return self.path / "blobs" / name

    def lock(self, name: str) -> Path:
        """The file that whoever writes the blob holds locked, huggingface_hub too."""
        return self.locks / f"{name}.lock"

    def link(self, commit: str, path: str, blob: str) -> None:
        """Give a blob its name in a snapshot; where the system has no links, the file itself goes there."""
        pointer = self.snapshot(commit).joinpath(*path.split("/"))
        if pointer.exists():
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        target = self.blob(blob)
        pointer.unlink(missing_ok=True)  # a link to a blob that was removed
        try:
            pointer.symlink_to(os.path.relpath(target, pointer.parent))
        except FileExistsError:
            return  # another process was quicker
        except OSError:
            target.replace(pointer)

    def set_commit(self, revision: str, commit: str) -> None:
        """Remember which commit a branch or tag is."""
        if revision == commit:
            return
        ref = self.path / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f"{ref.name}.{secrets.token_hex(4)}.tmp")
        temporary.write_text(commit, "ascii")
        temporary.replace(ref)

    def remove(self, pointers: Iterable[Path]) -> None:
        """Remove files of snapshots, and the bytes that nothing else here links to."""
        for pointer in pointers:
            blob = pointer.resolve()
            pointer.unlink()
            if blob.exists() and not self._is_linked(blob):
                blob.unlink()
        if self.path.is_dir() and not any(
            path.suffix.lower() in MODEL_FILES for path in self.path.glob("snapshots/**/*")
        ):
            shutil.rmtree(self.path)  # cards and configurations alone are of no use

    def _is_linked(self, blob: Path) -> bool:
        return any(path.is_symlink() and path.resolve() == blob for path in (self.path / "snapshots").rglob("*"))


def default_cache() -> HubCache:
    """The cache that huggingface_hub uses: HF_HUB_CACHE, or HF_HOME/hub, or ~/.cache/huggingface/hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    path = Path(HF_HUB_CACHE)
    if path.exists() and not path.is_dir():
        raise SourceError("is not a folder", where=str(path), fix="set HF_HUB_CACHE to a folder")
    return HubCache(path)
