"""docs/formats.md says of the formats in examples/ what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sis_core import Registry
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.kinds import Kind, kind_for
from sis_core.backends.native.library import Library
from sis_core.quant import QuantFormat, Weight

ROOT = Path(__file__).parent.parent
HOOK = "sis_register_quant_formats"
N_COLS = 2048
PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", PAGE.partition("## What layouts take")[2], re.MULTILINE)


@pytest.fixture(scope="module")
def formats() -> dict[str, QuantFormat]:
    """Those of the examples that are one file of Python and have a layout."""
    files = [path for path in ROOT.glob("examples/*/sis_*.py") if HOOK in path.read_text("utf-8")]
    registry = Registry.load(files=files)
    named = {plugin.name for plugin in registry.plugins if plugin.named}
    found = [entry.record for entry in registry.entries("quant_formats") if entry.plugin in named]
    return {format.name: format for format in found if format.layout is not None}


@pytest.fixture(scope="module")
def library() -> Library | None:
    backends = [b for b in Registry.load().records("backends") if isinstance(b, NativeBackend) and not b.idle_reason()]
    return backends[0].library() if backends else None


def test_the_table_has_every_layout_of_the_examples(formats: dict[str, QuantFormat]) -> None:
    assert {name for name, _, _ in ROWS} == set(formats)


@pytest.mark.parametrize(("name", "in_file", "in_memory"), ROWS, ids=[row[0] for row in ROWS])
def test_bits_in_a_file_and_in_memory(
    name: str, in_file: str, in_memory: str, formats: dict[str, QuantFormat], library: Library | None
) -> None:
    format = formats[name]
    assert f"{8 * format.row_bytes(N_COLS) / N_COLS:.2f}" == in_file
    if library is None:
        pytest.skip("no native backend works on this machine")
    values = np.random.default_rng(1).standard_normal((16, N_COLS)).astype(np.float32)
    kind = kind_for(library, Weight.from_array("w", values, format))
    assert isinstance(kind, Kind), kind
    n_bytes = library.tile_bytes(kind.number, abi.TILE, N_COLS)
    assert f"{8 * n_bytes / (abi.TILE * N_COLS):.2f}" == in_memory
