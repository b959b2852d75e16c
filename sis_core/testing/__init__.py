"""The conformance kit: one check for each kind of plugin, and suites that show each fault as a test of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sis_core.testing.architecture import check_architecture as check_architecture
    from sis_core.testing.backend import check_backend as check_backend
    from sis_core.testing.chat_format import check_chat_format as check_chat_format
    from sis_core.testing.drafter import check_drafter as check_drafter
    from sis_core.testing.eviction import check_eviction as check_eviction
    from sis_core.testing.models import write_model as write_model
    from sis_core.testing.quant_format import check_quant_format as check_quant_format
    from sis_core.testing.sampler import check_sampler as check_sampler
    from sis_core.testing.source import check_source as check_source
    from sis_core.testing.suites import BackendSuite as BackendSuite
    from sis_core.testing.suites import QuantFormatSuite as QuantFormatSuite
    from sis_core.testing.suites import SamplerSuite as SamplerSuite
    from sis_core.testing.tokenizer import check_tokenizer as check_tokenizer

# Looked up on first use: pytest imports this package in every environment that has sis-core.
_HOMES = {
    "check_architecture": "architecture",
    "check_backend": "backend",
    "check_chat_format": "chat_format",
    "check_drafter": "drafter",
    "check_eviction": "eviction",
    "write_model": "models",
    "check_quant_format": "quant_format",
    "check_sampler": "sampler",
    "check_source": "source",
    "check_tokenizer": "tokenizer",
    "BackendSuite": "suites",
    "QuantFormatSuite": "suites",
    "SamplerSuite": "suites",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sis_core.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"sis_core.testing.{_HOMES[name]}"), name)
