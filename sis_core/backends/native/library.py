"""Opens a plugin's shared library and makes sure that it is the one we think it is."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from sis_core.backends.native import abi
from sis_core.backends.native.border import taken
from sis_core.errors import BackendError
from sis_core.machine.cores import default_threads
from sis_core.machine.lock import Lock

log = logging.getLogger(__name__)

SUFFIX = {"Darwin": ".dylib", "Windows": ".dll"}.get(platform.system(), ".so")


class Library:
    """A checked library; its functions are attributes named as in `abi.PROTOTYPES`. It is never unloaded."""

    def __init__(self, path: Path) -> None:
        """BackendError in one line when the file is missing, cannot be loaded, or speaks another contract."""
        self.path = path
        where = str(path)
        if not path.is_file():
            raise BackendError("was built without native code for this machine", where=path.parent.name)
        try:
            self._library = ctypes.CDLL(where)
        except OSError as error:
            raise BackendError(f"cannot be loaded: {str(error).splitlines()[0]}", where=where) from None
        for name, (result, arguments) in abi.PROTOTYPES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise BackendError(f"has no function {name}: it is not a kernel library of sis", where=where)
            function.restype, function.argtypes = result, [taken(name, *argument) for argument in arguments.items()]
            if name == "sis_program_version" and function() != abi.PROGRAM:
                raise BackendError(
                    f"has programs of version {function()}, but this sis-core has {abi.PROGRAM}",
                    where=where,
                    fix="install versions of the two that belong together",
                )
            setattr(self, name.removeprefix("sis_"), function)
        for index, structure in enumerate(abi.STRUCTURES):
            if self.struct_size(index) != ctypes.sizeof(structure):
                raise BackendError(f"has another struct {structure.c_name} than this sis-core", where=where)
        wanted = os.environ.get("SIS_ISA")
        if wanted and wanted != self.isa_name:
            log.warning("SIS_ISA=%s is passed over: %s; %s is used", wanted, self.isa_reason, self.isa_name)

    def __getattr__(self, name: str) -> Any:  # so that a type checker knows that there are more attributes
        raise AttributeError(name)

    @property
    def isa_name(self) -> str:
        """The instruction set in use."""
        return str(self.isa().decode())

    @property
    def isa_reason(self) -> str:
        """Why that one and not a better one, or an empty text."""
        return str(self.isa_note().decode())


_opened: dict[str, Library | BackendError] = {}
_lock = Lock()


def open_library(package: str) -> Library:
    """The library ``libsis`` in an installed package, opened once; BackendError says in a line why there is none.

    SIS_LIBRARY names a file to open instead, such as one that was built with a sanitizer.
    """
    with _lock:
        if package not in _opened:
            try:
                with as_file(files(package) / f"libsis{SUFFIX}") as path:
                    _opened[package] = Library(Path(os.environ.get("SIS_LIBRARY") or path))
            except BackendError as error:
                _opened[package] = error
        found = _opened[package]
    if isinstance(found, BackendError):
        raise found
    return found


def huge_pages() -> str:
    """The system's rule for huge pages: always, madvise, never or unknown."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        return text[text.index("[") + 1 : text.index("]")]
    except (OSError, ValueError):
        return "unknown"


def info(library: Library) -> dict[str, Any]:
    """What `sis doctor` shows: instruction set and why, threads, huge pages."""
    return {
        "isa": library.isa_name,
        "note": library.isa_reason,
        "threads": default_threads(),
        "huge_pages": huge_pages(),
    }


def read_bandwidth(library: Library, n_threads: int | None = None, mib: int = 256, repeats: int = 5) -> float:
    """Bytes per second that ``n_threads`` read from memory, best of ``repeats``: the limit of decoding."""
    from sis_core.backends.native.memory import Arena

    arena = Arena(mib << 20)
    arena.array[:: 1 << 12] = 1  # every page of its own, not the one page of zeros
    times = [library.read(arena.address, mib << 20, n_threads or default_threads()) for _ in range(repeats)]
    return float((mib << 20) / (min(times) * 1e-9))


def address(array: np.ndarray[Any, Any]) -> int:
    """Where an array's data lies. Whoever keeps the number keeps the array. Buffers take half the time."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only, not contiguous, or empty
        return int(array.__array_interface__["data"][0])
