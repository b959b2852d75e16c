"""Garbage is collected again once nobody is at work that does without."""

from __future__ import annotations

import gc
import threading

import pytest

from sis_core.machine.collector import no_collection


def test_garbage_is_collected_again() -> None:
    assert gc.isenabled()
    with no_collection():
        with no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_collection():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_collects_none_collects_none_afterwards() -> None:
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_threads_whose_work_overlaps_leave_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins while another ends does not take what it finds in between for what was there before."""
    first, look = no_collection(), gc.isenabled
    ended: list[bool] = []

    def end() -> None:
        if not ended:
            ended.append(True)
            first.__exit__(None, None, None)

    def then_end() -> bool:
        found = look()
        end()
        return found

    def work() -> None:
        with no_collection():
            pass

    first.__enter__()
    monkeypatch.setattr(gc, "isenabled", then_end)
    second = threading.Thread(target=work)
    second.start()
    second.join()
    end()
    monkeypatch.undo()
    assert gc.isenabled()
