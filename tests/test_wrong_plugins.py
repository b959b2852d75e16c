"""What is wrong with a plugin is said in words: sources here, the other kinds in the tests of their kits.

Also: a suite shows each fault as a test of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sis_core.errors import SourceError
from sis_core.source import Progress, Source
from sis_core.testing import check_source

NAME = "story"


@pytest.fixture
def folder(tmp_path: Path, sis_model_file: Path) -> Path:
    (tmp_path / f"{NAME}.gguf").write_bytes(sis_model_file.read_bytes())
    (tmp_path / "other.gguf").write_bytes(sis_model_file.read_bytes())
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    return tmp_path


def source(resolve: Callable[[Path, str], Any], folder: Path, **attributes: Any) -> Source:
    """A source that resolves with a function of the folder and the reference."""

    def method(self: Source, reference: str, progress: Progress | None = None) -> Any:
        return resolve(folder, reference)

    made: type[Source] = type("Wrong", (Source,), {"name": "wrong", "resolve": method, **attributes})
    return made()


def right(folder: Path, reference: str) -> Path | None:
    return {path.stem: path for path in folder.glob("*.gguf")}.get(reference)


def test_a_right_source_passes(folder: Path) -> None:
    check_source(source(right, folder), NAME, "other")

    def only_default(folder: Path, reference: str) -> Path | None:
        return folder / f"{NAME}.gguf" if reference == "" else None

    check_source(source(only_default, folder, default=True))


def test_a_source_may_refuse_what_it_does_not_know(folder: Path) -> None:
    def refusing(folder: Path, reference: str) -> Path:
        found = right(folder, reference)
        if found is None:
            raise SourceError("has no such model", where="wrong", fix="choose another")
        return found

    check_source(source(refusing, folder), NAME)


def joins(folder: Path, reference: str) -> Path | None:
    path = folder / reference
    return path.with_suffix(".gguf") if path.with_suffix(".gguf").exists() else path if path.exists() else None


def knows_all(folder: Path, reference: str) -> Path:
    return folder / f"{NAME}.gguf"


def knows_nothing(folder: Path, reference: str) -> None:
    return None


def does_not_look(folder: Path, reference: str) -> Path | None:
    return folder / "missing.gguf" if reference == NAME else None


def does_not_verify(folder: Path, reference: str) -> Path | None:
    return folder / "page.gguf" if reference == NAME else None


def text(folder: Path, reference: str) -> str | None:
    found = right(folder, reference)
    return str(found) if found else None


def foreign_error(folder: Path, reference: str) -> Path:
    return {path.stem: path for path in folder.glob("*.gguf")}[reference]


def says_no_place(folder: Path, reference: str) -> Path:
    found = right(folder, reference)
    if found is None:
        raise SourceError("no")
    return found


def globs(folder: Path, reference: str) -> Path | None:
    if len(reference) > 99 or set(reference) & set("\0/") or not reference.strip("."):
        return None
    return next(folder.glob(f"{reference}.gguf"), None)


def relative(folder: Path, reference: str) -> Path | None:
    found = right(folder, reference)
    return found.relative_to(Path.cwd()) if found else None


def alternating() -> Callable[[Path, str], Path | None]:
    names: Iterator[str] = iter([NAME, "other"] * 100)
    return lambda folder, reference: folder / f"{next(names)}.gguf" if reference == NAME else None


WRONG: list[tuple[Callable[[Path, str], Any], dict[str, Any], str]] = [
    (joins, {}, r"gave .* for a name that it cannot know: return None \(reference '\.\.'\)"),
    (knows_all, {}, r"for a name that it cannot know: return None \(reference 'no model has this name'\)"),
    (knows_nothing, {}, "does not know a model that it should have"),
    (does_not_look, {}, "missing.gguf, which is not a file: raise a SourceError that says what is missing"),
    (does_not_verify, {}, "which is not a GGUF file: a source verifies what it gives"),
    (text, {}, "returned str, not a Path or None"),
    (foreign_error, {}, r"raised KeyError, not a SisError.*\(reference 'no model has this name'\)"),
    (says_no_place, {}, "raised SourceError without saying where"),
    (globs, {}, r"for a name that it cannot know: return None \(reference '\*'\)"),
    (relative, {}, "which means another file in another folder: give an absolute path"),
    (alternating(), {}, "and another file when asked again"),
    (right, {"name": "my source"}, "its name cannot be typed"),
    (right, {"name": None}, "has no name"),
    (right, {"default": 1}, "default is 1, not True or False"),
    (right, {"default": True}, r"does not know a model that it should have \(reference ''\)"),
]


@pytest.mark.parametrize(("resolve", "attributes", "message"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_a_wrong_source_is_named(
    resolve: Callable[[Path, str], Any], attributes: dict[str, Any], message: str,
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    with pytest.raises(AssertionError, match=f"(?s)source .*: .*{message}"):
        check_source(source(resolve, folder, **attributes), NAME)


def test_nothing_to_test_is_a_fault(folder: Path) -> None:
    with pytest.raises(AssertionError, match="nothing would be tested"):
        check_source(source(right, folder))


SUITES = """
import numpy as np
from sis_core.backend import Backend
from sis_core.quant import BlockFormat
from sis_core.sampler import Filter
from sis_core.testing import BackendSuite, QuantFormatSuite, SamplerSuite

class Sign(BlockFormat):
    name, block_size, type_size = "SIGN", 32, 4
    def quantize_blocks(self, values):
        return np.packbits(values > 0, axis=1)
    def dequantize_blocks(self, blocks):
        return 2 * np.unpackbits(blocks, axis=1) - np.float32(1)

class TestSign(QuantFormatSuite):
    format = Sign()

class Shy(Filter):
    name = "shy"
    def apply(self, logits):
        logits[logits > logits.max() - 0.5] = float("-inf")

class TestShy(SamplerSuite):
    sampler = Shy

class Halved(Backend):
    name = "halved"
    def linear(self, weight, options):
        return lambda x: x @ weight.dequantize().T / np.float32(2)

class TestHalved(BackendSuite):
    backend = Halved()
"""


def test_a_suite_shows_each_fault_as_a_test_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_suites.py").write_text(SUITES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", "-rfp", "test_suites.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},  # a run of its own
    )  # fmt: skip
    lines = [line.removeprefix("test_suites.py::") for line in done.stdout.replace("test_suites.py::", "").splitlines()]
    passed = {line.removeprefix("PASSED ") for line in lines if line.startswith("PASSED ")}
    failed = {line.removeprefix("FAILED ").partition(" - ")[0] for line in lines if line.startswith("FAILED ")}
    assert {"TestSign::test_declaration", "TestSign::test_decoding", "TestSign::test_native_decoder"} <= passed
    assert {"TestSign::test_faithfulness", "TestSign::test_encoding"} <= failed
    assert {"TestShy::test_options", "TestShy::test_effect", "TestShy::test_behaviour[very different logits]"} <= passed
    assert {"TestShy::test_behaviour[equal logits]", "TestShy::test_behaviour[n_vocab 1]"} <= failed
    assert "TestHalved::test_it_does_something" in passed
    assert "TestHalved::test_whole_models[F32 with f32 cache]" in failed
    assert "format SIGN: turns values of at most" in done.stdout
