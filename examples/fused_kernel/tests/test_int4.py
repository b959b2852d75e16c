"""The contract, under which the kernel must give what numpy gives, on every instruction set of this machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sis_int4 import LIBRARY, Int4

from sis_core.backend import BackendOptions
from sis_core.backends.bind import usable
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.testing import QuantFormatSuite, check_quant_format


class TestInt4(QuantFormatSuite):
    format = Int4()


@pytest.mark.parametrize("isa", range(LIBRARY.int4_best() + 1), ids=lambda isa: LIBRARY.int4_name(isa).decode())
def test_every_instruction_set(isa: int) -> None:
    check_quant_format(Int4(isa))


@pytest.mark.parametrize("n_rows", [8, 17, 129, 300])
def test_many_rows_have_the_bits_of_one(n_rows: int) -> None:
    """On instructions that take rows in groups; the kit tries thirteen rows at most."""
    random = np.random.default_rng(n_rows)
    weight = Weight.from_array("w", random.standard_normal((150, 544), np.float32), Int4())
    backends = usable(Registry.load().records("backends"))
    bound = [linear for backend in backends if (linear := backend.linear(weight, BackendOptions(n_threads=2)))]
    if not bound:
        pytest.skip("no backend that calls kernels is installed for this machine")
    linear = bound[0]
    x = random.standard_normal((n_rows, 544), np.float32)
    together = linear(x)
    assert all(np.array_equal(linear(x[i : i + 1])[0], together[i]) for i in range(n_rows))
    wanted = x @ weight.dequantize().T
    assert np.abs(together - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "int4", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
