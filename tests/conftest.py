"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_models

pytest.register_assert_rewrite("kernel_suite")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real models that SIS_TEST_DATA names; tests that need it are skipped where it is unset."""
    folder = os.environ.get("SIS_TEST_DATA")
    if not folder:
        pytest.skip("SIS_TEST_DATA is not set: it names a folder with models/stories260K.gguf")
    return Path(folder)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random LLaMA file."""
    return tiny_models.write_model(tmp_path_factory.mktemp("models") / "random.gguf")
