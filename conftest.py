"""What several tests share."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
import tiny_models

MACHINE = re.compile(r"this (machine|system|processor)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test has failed, unless this machine is why")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    strict = item.config.getoption("--no-skips") and not hasattr(report, "wasxfail")
    if report.skipped and strict and not MACHINE.search(str(report.longrepr)):
        report.outcome = "failed"
    return report


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
