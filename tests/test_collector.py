"""Garbage is collected again once nobody is at work that does without."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

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


def in_child(check: Callable[[], bool]) -> bool:
    """What ``check`` finds in a process that this thread forks."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_collects_garbage_whatever_threads_were_at_when_it_was_forked() -> None:
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        with no_collection():
            begun.set()
            done.wait()

    def ends_in_child() -> bool:
        with no_collection():
            pass
        return gc.isenabled()

    def work_of_its_own() -> bool:
        """Of the thread that forks: it goes on in the child."""
        with no_collection():
            paused = in_child(lambda: not gc.isenabled())
            child = os.fork()
        if not child:
            os._exit(0 if gc.isenabled() else 1)
        return paused and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    other = threading.Thread(target=work)
    other.start()
    begun.wait()
    try:
        assert in_child(gc.isenabled)
        assert in_child(ends_in_child)
        assert work_of_its_own()
        assert not gc.isenabled()
    finally:
        done.set()
        other.join()
    assert gc.isenabled()
    gc.disable()
    try:
        assert in_child(lambda: not gc.isenabled())
    finally:
        gc.enable()
