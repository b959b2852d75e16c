"""The built-in model in every format that can encode: made here, and told to go on as its golden text does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sis_core.registry import Registry

FOLDER = Path(__file__).parent / "goldens" / "texts"
GOLDENS: dict[str, dict[str, list[int]]] = json.loads((FOLDER / "tiny.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_texts", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("format", sorted(GOLDENS))
def test_the_story_goes_on_as_before(format: str, make: ModuleType, tmp_path: Path) -> None:
    golden = GOLDENS[format]["tokens"]
    assert make.tell(Registry.load(), format, tmp_path / "m.gguf", len(golden), 0.0) == golden


def test_every_format_that_can_encode_has_a_golden(make: ModuleType) -> None:
    assert make.encodable(Registry.load()) == sorted(GOLDENS)


def test_the_good_formats_tell_a_story() -> None:
    for format in ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0"):
        assert len(GOLDENS[format]["tokens"]) >= 8, format
