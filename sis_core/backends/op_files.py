"""Ops by the files of a folder: a backend has one file for each record of `sis_core.block`, and no list of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any


def by_record(folder: ModuleType, function: str) -> dict[type, Any]:
    """``function`` of every module of a package, by the class of records that the module names as its ``OP``."""
    modules = [import_module(f"{folder.__name__}.{found.name}") for found in iter_modules(folder.__path__)]
    return {module.OP: getattr(module, function) for module in modules}
