"""The built-in model is found without a name, and says so when its file is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sis_tiny
from sis_tiny.source import TinySource

from sis_core.errors import SourceError
from sis_core.registry import Registry
from sis_core.source import Progress, Source, resolve

PACKAGE = Path(sis_tiny.__file__).parent


def test_it_is_the_default_and_has_a_name() -> None:
    sources = Registry.of(sis_tiny).records("sources")
    assert resolve(None, sources) == resolve("tiny", sources) == PACKAGE / "tiny.gguf"


def test_another_name_is_not_its_business() -> None:
    assert TinySource().resolve("large") is None


def test_a_damaged_file_says_how_to_reinstall(tmp_path: Path) -> None:
    for name in ("tiny.gguf", "tiny.gguf.sha256"):
        shutil.copy(PACKAGE / name, tmp_path)
    with (tmp_path / "tiny.gguf").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\xff")
    with pytest.raises(
        SourceError, match=r"tiny\.gguf: the built-in model is damaged.*pip install --force-reinstall sis-tiny"
    ):
        TinySource(tmp_path).resolve("")


@pytest.mark.parametrize("missing", ["tiny.gguf", "tiny.gguf.sha256"])
def test_a_missing_file_says_how_to_reinstall(tmp_path: Path, missing: str) -> None:
    for name in {"tiny.gguf", "tiny.gguf.sha256"} - {missing}:
        shutil.copy(PACKAGE / name, tmp_path)
    with pytest.raises(
        SourceError, match=r"missing a file: .*" + missing + r".*pip install --force-reinstall sis-tiny"
    ):
        TinySource(tmp_path).resolve("tiny")


class Rival(Source):
    name = "rival"
    default = True

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        return None


def test_two_defaults_name_both_packages() -> None:
    with pytest.raises(SourceError, match=r"two sources say that theirs is the default model: .*sis_tiny"):
        resolve(None, [TinySource(), Rival()])


def test_no_default_says_what_to_install() -> None:
    with pytest.raises(SourceError, match="pip install sis-tiny"):
        resolve(None, [])
