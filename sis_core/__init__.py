"""sis: run language models from GGUF files, with every format, kernel, family and sampler a plugin.

>>> import sis_core
>>> with sis_core.load("model.gguf") as model:  # doctest: +SKIP
...     for piece in model.generate("Once upon a time", sampler="top-p"):
...         print(piece, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sis_core.errors import SisError as SisError
    from sis_core.hookspecs import SIS_API as SIS_API
    from sis_core.hookspecs import hookimpl as hookimpl
    from sis_core.registry import Registry as Registry
    from sis_core.sampler import Filter as Filter
    from sis_core.texts.language_model import LanguageModel as LanguageModel
    from sis_core.texts.language_model import load as load
    from sis_core.texts.request import Completion as Completion
    from sis_core.texts.request import Request as Request
    from sis_core.texts.scheduler import Scheduler as Scheduler
    from sis_core.texts.session import Session as Session

# Looked up on first use: `sis --help` imports this package and must not import numpy.
_HOMES = {
    "SisError": "errors",
    "SIS_API": "hookspecs",
    "hookimpl": "hookspecs",
    "Completion": "texts.request",
    "Request": "texts.request",
    "Scheduler": "texts.scheduler",
    "LanguageModel": "texts.language_model",
    "load": "texts.language_model",
    "Registry": "registry",
    "Filter": "sampler",
    "Session": "texts.session",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sis_core' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"sis_core.{_HOMES[name]}"), name)
