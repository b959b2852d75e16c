"""Which backends a model asks."""

from __future__ import annotations

from sis_core.backend import Backend
from sis_core.backends.bind import usable, why_idle
from sis_core.errors import BackendError
from sis_core.registry import Registry


def choose_backends(registry: Registry, name: str | None) -> list[Backend]:
    """The backends to ask, in order. A named one is asked alone (the numpy reference fills what it leaves)."""
    if name is None:
        chosen = usable(registry.records("backends"))
        if not chosen:
            raise BackendError("no backend works on this machine", where="--backend")
        return chosen
    backend: Backend = registry.get("backends", name, where="--backend")
    if reason := why_idle(backend):
        raise BackendError(f"cannot work here: {reason}", where=f"backend {name}", fix="choose another with --backend")
    return [backend]
