"""fsspec's addresses: copied once, told apart by version, refused in a sentence."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import fsspec
import pytest
from sis_hub.file_systems import FileSystemSource
from sis_hub.verify import verify

from sis_core.errors import SourceError
from sis_core.testing import check_source


@pytest.fixture
def place(model: bytes) -> str:
    """A model in fsspec's file system in memory."""
    with fsspec.open("memory://bucket/m.gguf", "wb") as file:
        file.write(model)
    return "memory://bucket/m.gguf"


def test_copied_once(place: str, tmp_path: Path, model: bytes) -> None:
    source = FileSystemSource(tmp_path)
    path = source.resolve(place)
    assert path is not None
    assert path.read_bytes() == model
    assert source.resolve(place) == path
    (listing,) = source.list()
    assert listing.name == place
    assert verify(listing)
    assert source.remove(place)
    assert not path.exists()


def test_inside_an_archive(tmp_path: Path, model: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.writestr("deep/m.gguf", model)
    source = FileSystemSource(tmp_path / "kept")
    reference = f"zip://deep/m.gguf::file://{tmp_path}/models.zip"
    path = source.resolve(reference)
    assert path is not None
    assert path.read_bytes() == model
    assert source.read(reference, 2, 6) == model[2:8]
    os.utime(tmp_path / "models.zip")


def test_a_changed_file_is_copied_again(place: str, tmp_path: Path, model: bytes) -> None:
    source = FileSystemSource(tmp_path)
    first = source.resolve(place)
    with fsspec.open(place, "wb") as file:
        file.write(model + bytes(32))
    second = source.resolve(place)
    assert second is not None
    assert second != first
    assert second.read_bytes() == model + bytes(32)


def test_no_model(tmp_path: Path) -> None:
    with fsspec.open("memory://bucket/page.gguf", "wb") as file:
        file.write(b"<!doctype html>" + b" " * 1000)
    with pytest.raises(SourceError, match="an HTML or XML page"):
        FileSystemSource(tmp_path).resolve("memory://bucket/page.gguf")
    assert not list(tmp_path.rglob("*.gguf")) + list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("memory://bucket/none.gguf", "no such file"),
        ("sftp://me:secret@host.invalid/m.gguf", "needs another package|cannot be read"),
        ("zip://m.gguf::memory://bucket/none.zip", "no such file|cannot be read"),
    ],
)
def test_refused(tmp_path: Path, reference: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as refused:
        FileSystemSource(tmp_path).resolve(reference)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("reference", ["tiny", "hf://a/b", "https://a/b", "file:///etc/passwd", "nowhere://x", ""])
def test_what_is_not_its_business(tmp_path: Path, reference: str) -> None:
    assert FileSystemSource(tmp_path).resolve(reference) is None


def test_a_source_like_any_other(place: str, tmp_path: Path) -> None:
    check_source(FileSystemSource(tmp_path), place)
