"""``pkg://``: models that installed packages carry, checked against the package's own record."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

import pytest
import sis_tiny
from sis_hub.packages import PackageSource
from sis_hub.verify import verify

from sis_core.errors import SourceError
from sis_core.testing import check_source


@pytest.fixture
def folder(tmp_path: Path, model: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution ``two-models`` as pip leaves it."""
    site = tmp_path / "site"
    lines = []
    for name in ("two_models/a.gguf", "two_models/deep/b.gguf", "two_models/s-00002-of-00002.gguf"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model)
        digest = base64.urlsafe_b64encode(hashlib.sha256(model).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(model)}")
    info = site / "two_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: two-models\nVersion: 1.0\nLicense-Expression: MIT\n")
    (info / "RECORD").write_text("\n".join([*lines, "two_models-1.0.dist-info/RECORD,,"]) + "\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return site


def test_found_by_path_and_by_unique_end(folder: Path) -> None:
    source = PackageSource()
    assert source.resolve("pkg://two-models/two_models/a.gguf") == folder / "two_models/a.gguf"
    assert source.resolve("//two-models/b.gguf") == folder / "two_models/deep/b.gguf"
    check_source(source, "//two-models/a.gguf", "pkg://two-models/deep/b.gguf")


def test_the_only_model_of_a_package_needs_no_name() -> None:
    assert PackageSource().resolve("pkg://sis-tiny") == Path(sis_tiny.__file__).parent / "tiny.gguf"


def test_listed_with_licence_and_verified(folder: Path) -> None:
    found = [listing for listing in PackageSource().list() if listing.name.startswith("pkg://two-models/")]
    assert [(listing.name, listing.licence) for listing in found] == [
        ("pkg://two-models/two_models/a.gguf", "MIT"),
        ("pkg://two-models/two_models/deep/b.gguf", "MIT"),
    ]
    assert all(verify(listing) for listing in found)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("pkg://no-such-distribution/x.gguf", r"is not installed\. `pip install no-such-distribution`"),
        ("pkg://two-models", r"'' ends the names of 2 models\. It has: two_models/a\.gguf, two_models/deep/b\.gguf"),
        ("pkg://two-models/c.gguf", r"has no model 'c\.gguf'\. It has: two_models/a\.gguf"),
        ("pkg://two-models/../../etc/passwd", "has no model"),
        ("pkg://../x", "is not a package's name"),
        ("pkg://", "is not a package's name"),
    ],
)
def test_refused(folder: Path, reference: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        PackageSource().resolve(reference)


@pytest.mark.parametrize(("damage", "said"), [(b"x", "bytes, not"), (None, "is missing"), (b"same", "is damaged")])
def test_a_damaged_file_says_how_to_reinstall(folder: Path, model: bytes, damage: bytes | None, said: str) -> None:
    path = folder / "two_models/a.gguf"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage if damage == b"x" else model[:-4] + b"abcd")
    with pytest.raises(SourceError, match=rf"{said}.*pip install --force-reinstall two-models"):
        PackageSource().resolve("pkg://two-models/a.gguf")


def test_pip_removes_what_pip_brought(folder: Path) -> None:
    with pytest.raises(SourceError, match="`pip uninstall two-models` removes it"):
        PackageSource().remove("pkg://two-models/a.gguf")
    assert not PackageSource().remove("tiny")


def test_read(folder: Path, model: bytes) -> None:
    assert PackageSource().read("pkg://two-models/a.gguf", 3, 5) == model[3:8]
    assert PackageSource().read("tiny", 3, 5) is None
