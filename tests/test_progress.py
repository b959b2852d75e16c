"""The progress bar: on a terminal, after a moment, and not otherwise."""

from __future__ import annotations

import io

import pytest

from sis_core.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("patience", "drawn"), [(0.0, True), (1e6, False)])
def test_a_bar_appears_after_a_moment(patience: float, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress_bar() as update:
        update("packing [1]", 1, 4)
        update("packing [1]", 4, 4)
    assert ("packing [1]" in terminal.getvalue()) is drawn
    assert ("100%" in terminal.getvalue()) is drawn


def test_no_bar_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    with progress.progress_bar() as update:
        update("packing", 1, 1)
    assert pipe.getvalue() == ""
