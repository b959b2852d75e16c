"""What every package of model families is tested with. Its test subclasses the suite and names its models:

    class TestQwen(FamilySuite):
        goldens = ("qwen2", "qwen3")

Goldens are files that llama.cpp's converter wrote from tiny models, with transformers' logits in float64
(goldens/families/README.md); shapes are models that `random_model.py` writes.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import random_model
from shapes import SHAPES

from sis_core.backend import BackendOptions
from sis_core.gguf_file import GGUFFile
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.loading.weights import file_weights
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.step import Batch
from sis_core.testing import check_architecture
from sis_core.testing.kernels import kind_of_this_machine

FOLDER = Path(__file__).parent / "goldens" / "families"
TOLERANCE = 1e-4
CLOSE = 1e-3
"""Two logits nearer than this are equally good."""


@cache
def installed() -> Registry:
    return Registry.load()


def content(path: Path) -> tuple[dict[str, Any], dict[str, Weight]]:
    """Metadata and weights of a file, without its vocabulary, as the kit takes them."""
    with GGUFFile.open(path) as file:
        weights = {
            name: Weight.from_array(name, weight.dequantize().copy())
            for name, weight in file_weights(file, installed()).items()
        }
        return {key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.")}, weights


def write_golden(name: str, folder: Path) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
    return path


class Golden:
    """A golden with its model opened."""

    def __init__(self, name: str, model: Model) -> None:
        self.model = model
        with np.load(FOLDER / f"{name}.npz") as golden:
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


class FamilyKit:
    """What the framework promises of every family.

    Attributes:
        shapes: models of the family, by their names in `SHAPES`.
        set_aside: keys that a model may have and the family not use, as in `check_architecture`.
    """

    shapes: ClassVar[Sequence[str]] = ()
    set_aside: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def models(cls) -> list[str]:
        return list(cls.shapes)

    @classmethod
    def write(cls, name: str, folder: Path) -> Path:
        n_layer = 6 if name == "gemma-3-1b" else 2  # the first layer of Gemma 3 that sees everything is the sixth
        random_model.write_model(SHAPES[name].scaled_down().with_layers(n_layer), folder / "small.gguf", seed=2)
        return folder / "small.gguf"

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """A test for each model."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", metafunc.cls.models())

    def test_what_every_family_promises(self, name: str, tmp_path: Path) -> None:
        values, weights = content(self.write(name, tmp_path))
        family = installed().get("architectures", values["general.architecture"])
        check_architecture(family, values, weights, set_aside=self.set_aside.get(name, ()))

    def test_a_step_of_every_shape_is_one_native_call(self, tmp_path: Path) -> None:
        kind = kind_of_this_machine()
        for name in self.shapes if kind else ():
            with open_model(Model, self.write(name, tmp_path), installed()) as model:
                assert kind is not None
                assert set(model.grains) == {f"{kind.name} forward"}, name


class FamilySuite(FamilyKit):
    """That, and logits of another program.

    Attributes:
        goldens: models of the family, by their names in goldens/families.
    """

    goldens: ClassVar[Sequence[str]]

    @classmethod
    def models(cls) -> list[str]:
        return [*cls.goldens, *cls.shapes]

    @classmethod
    def write(cls, name: str, folder: Path) -> Path:
        return write_golden(name, folder) if name in cls.goldens else super().write(name, folder)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """A test for each model; each golden on the reference and on the best backend."""
        super().pytest_generate_tests(metafunc)
        if "golden" in metafunc.fixturenames:
            cases = [(name, backend) for name in metafunc.cls.goldens for backend in ("numpy", "native")]
            metafunc.parametrize("golden", cases, ids="-".join, indirect=True)

    @pytest.fixture
    def golden(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Golden]:
        name, backend = request.param
        file, options = write_golden(name, tmp_path), BackendOptions(kv_type="f32", n_threads=1)
        chosen = backend if backend == "numpy" else None
        with open_model(Model, file, installed(), backend=chosen, options=options) as model:
            if backend == "native" and (kind := kind_of_this_machine()):
                assert set(model.grains) == {f"{kind.name} forward"}, "a step of every family is one native call"
            yield Golden(name, model)

    def test_at_once_and_token_by_token(self, golden: Golden) -> None:
        model, n = golden.model, len(golden.ids)
        golden.check(model.step(Batch.of(golden.ids, outputs=range(n)), model.new_cache(n)).values)
        cache = model.new_cache(n)
        each = [model.step(Batch.of([t], position=i), cache).values[0] for i, t in enumerate(golden.ids)]
        golden.check(np.stack(each))
