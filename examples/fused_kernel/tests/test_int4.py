"""The contract, under which the kernel must give what numpy gives, on every instruction set of this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sis_int4 import LIBRARY, Int4

from sis_core.testing import QuantFormatSuite, check_quant_format


class TestInt4(QuantFormatSuite):
    format = Int4()


@pytest.mark.parametrize("isa", range(LIBRARY.int4_best() + 1), ids=lambda isa: LIBRARY.int4_name(isa).decode())
def test_every_instruction_set(isa: int) -> None:
    check_quant_format(Int4(isa))


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "int4", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
