"""Files that llama.cpp's converter wrote from tiny models of each family, against transformers' logits in float64.

What is in goldens/families is said there; tests/oracle makes it.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_suite import kind_of_this_machine

from sis_core.backend import BackendOptions
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch

GOLDENS = sorted((Path(__file__).parent / "goldens" / "families").glob("*.npz"))
TOLERANCE = 1e-4
CLOSE = 1e-3
"""Two logits nearer than this are equally good."""
NATIVE = kind_of_this_machine()


class Golden:
    """A golden with its model opened."""

    def __init__(self, path: Path, model: Model, *, native: bool) -> None:
        self.model, self.native = model, native
        with np.load(path) as golden:
            self.ids, self.n_prompt, self.gaps = golden["ids"], int(golden["n_prompt"]), golden["gaps"]
            self.rows, self.logits = golden["rows"], golden["logits"]

    def check(self, logits: Any) -> None:
        """The logits ``(n, n_vocab)`` at every position have the golden's values and its best tokens."""
        error = np.abs(logits[self.rows].astype(np.float64) - self.logits).max() / np.abs(self.logits).max()
        assert error < TOLERANCE
        best = logits[self.n_prompt - 1 : -1].argmax(axis=1)
        sure = self.gaps[:-1] >= CLOSE
        assert sure.sum() > len(sure) / 2
        np.testing.assert_array_equal(best[sure], self.ids[self.n_prompt :][sure])


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(
    params=[(path, backend) for path in GOLDENS for backend in ("numpy", "native")], ids=lambda p: f"{p[0].stem}-{p[1]}"
)
def golden(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Iterator[Golden]:
    path, backend = request.param
    file = tmp_path / f"{path.stem}.gguf"
    file.write_bytes(lzma.decompress(path.with_name(f"{path.stem}.gguf.xz").read_bytes()))
    options = BackendOptions(kv_type="f32", n_threads=1)
    with open_model(Model, file, registry, backend=backend if backend == "numpy" else None, options=options) as model:
        yield Golden(path, model, native=backend == "native" and NATIVE is not None)


def test_at_once_and_token_by_token(golden: Golden) -> None:
    model, n = golden.model, len(golden.ids)
    if golden.native and NATIVE:
        assert set(model.grains) == {f"{NATIVE.name} forward"}, "a step of every family is one native call"
    golden.check(model.step(Batch.of(golden.ids, outputs=range(n)), model.new_cache(n)).values)
    cache = model.new_cache(n)
    golden.check(np.stack([model.step(Batch.of([t], position=i), cache).values[0] for i, t in enumerate(golden.ids)]))
