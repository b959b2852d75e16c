"""What backends usually get wrong, each as a change to a network: the reference then gives the wrong numbers too.

Where a backend's numbers are those of a changed network, the change names the fault. There is one file for each op,
with its ``FAULTS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from attrs import evolve

from sis_core.block import KV, Network
from sis_core.testing.faults.change import Fault, change

__all__ = ["FAULTS", "Fault", "faults"]

_MODULES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
FAULTS: tuple[Fault, ...] = tuple(fault for module in _MODULES for fault in getattr(module, "FAULTS", ()))


def faults(network: Network, whole_text: bool) -> Iterator[tuple[str, Network]]:
    """Every fault that ``network`` can show, with the network that has it, everywhere or between its ends only."""
    for fault in FAULTS:
        if fault.whole_text and not whole_text:
            continue
        spoilt = fault.spoil(network)
        if spoilt is not network:
            yield fault.words, spoilt if spoilt.blocks is network.blocks else _keeping_all(spoilt)
        if spoilt.blocks is not network.blocks and (spoilt.head, spoilt.embedding) != (network.head, network.embedding):
            yield f"{fault.words}, in its layers", evolve(network, blocks=_keeping_all(spoilt).blocks)


def _keeping_all(network: Network) -> Network:
    """The same network; its attention finds all tokens, however far it wrongly looks back."""
    return change(network, KV, lambda kv: evolve(kv, window=None) if kv.window else kv)
