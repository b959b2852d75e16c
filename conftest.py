"""What several tests share."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import tiny_models

MACHINE = re.compile(r"this (machine|system|processor)")
SLOW = (  # files of which most tests take long; `-m "not slow"` leaves them out
    # the program, in a process of its own
    "test_batch", "test_bench", "test_borders", "test_cli", "test_command", "test_commands", "test_completion",
    "test_cut_files", "test_evaluate", "test_examples", "test_llm", "test_new", "test_profile", "test_importance",
    "test_quantize", "test_quantize_refusals", "test_quantize_runs", "test_single_files", "test_terminal",
    "test_wrong_plugins",
    # whole networks: on each rung, or each with a fault; files with faults
    "test_amx", "test_backend_kit", "test_backend_kit_steps", "test_decoders", "test_knows", "test_models",
    "test_mutated_models", "test_native_attention", "test_native_experts", "test_native_load", "test_neon",
    "test_windows", "test_x86",
    # real models and other programs
    "test_clients", "test_connections", "test_hub", "test_lm_eval", "test_native_bench", "test_real_models",
    "test_tiny_formats",
    # thousands of draws or operations
    "test_forced", "test_hostile_templates", "test_kquants", "test_llama", "test_sampler", "test_scheduler",
    "test_schemas", "test_speculation", "test_statistics",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test has failed, unless this machine is why")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    strict = item.config.getoption("--no-skips") and not hasattr(report, "wasxfail")
    if report.skipped and strict and not MACHINE.search(str(report.longrepr)):
        report.outcome = "failed"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What the full run takes is slow too, so that `-m "not slow"` leaves out both.

    Workers begin with the slow files, so that none of them is alone in the end.
    """
    for item in items:
        if item.path.stem in SLOW or item.get_closest_marker("full"):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (item.path.stem != "test_neon", item.path.stem not in SLOW))


def pytest_configure() -> None:
    """Jobs that a shell put into the background ignore an interrupt, and so would the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes into a file of the test's folder."""

    def save(data: bytes, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save
