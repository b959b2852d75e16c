"""The rungs of a native plugin: a library for each, and a fixture over them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sis_core.backends.native import Library, NativeBackend
from sis_core.registry import Registry


def load(kind: type[NativeBackend], isa: str, folder: Path) -> Library:
    """A copy of the backend's library, which looks at SIS_ISA when it is loaded."""
    copy = folder / "libsis.so"
    shutil.copy(kind().library().path, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIS_ISA", isa)
        return Library(copy)


def kind_of_this_machine() -> type[NativeBackend] | None:
    """The native backend that works here."""
    found = Registry.load().records("backends")
    return next((type(b) for b in found if isinstance(b, NativeBackend) and b.idle_reason() is None), None)


def on_each_rung(kind: type[NativeBackend], isas: Sequence[str]) -> Any:
    """A fixture: the backend on this machine's best rung and, in the full run, on each that it has."""
    best = kind().library().isa_name if kind().idle_reason() is None else ""
    kept = best if best in isas else isas[-1]
    params = [isa if isa == kept else pytest.param(isa, marks=pytest.mark.full) for isa in isas]

    @pytest.fixture(scope="module", params=params)
    def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativeBackend:
        library = load(kind, request.param, tmp_path_factory.mktemp("library"))
        if library.isa_name != request.param:
            pytest.skip(library.isa_reason)

        class Forced(kind):  # type: ignore[misc,valid-type]
            def library(self) -> Library:
                return library

        return Forced()

    return backend
