"""Whether machines do the same: what results depend on beside the request, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from sis_core.errors import BackendError
from sis_core.loading.model import Model

FIX = {
    "model": "copy one file to all of them; `sha256sum` says which differ",
    "instructions": "SIS_ISA chooses an instruction set that all of them have, set before Ray is started there",
    "n_ctx": "give a context that all have memory for (--ctx)",
}


def identity(model: Model) -> dict[str, str]:
    """The model's digest, the backend and its instruction set, and the versions of all that computes."""
    found = {
        "model": model.fingerprint,
        "backend": model.backend,
        "instructions": model.backends[0].instructions,
        "numpy": version("numpy"),
    }
    for plugin in model.registry.plugins:
        named = plugin.named and Path(plugin.origin)
        found[f"plugin {plugin.name}"] = (
            hashlib.sha256(named.read_bytes()).hexdigest() if named else f"{plugin.origin} {plugin.version}"
        )
    return found


def check_alike(identities: Mapping[str, Mapping[str, str]]) -> None:
    """BackendError that names the first two machines that differ, and in what; ``identities`` are by machine."""
    (first, known), *others = identities.items()
    for machine, found in others:
        for key in sorted({*known, *found}):
            if known.get(key) != found.get(key):
                raise BackendError(
                    f"{key} is {str(found.get(key))[:80]!r}, and on {first} {str(known.get(key))[:80]!r}",
                    where=machine,
                    fix=FIX.get(key, "install the same versions on all machines"),
                )
