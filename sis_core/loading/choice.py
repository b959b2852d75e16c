"""Which backends a model asks."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence

from sis_core.backend import Backend
from sis_core.backends.bind import usable, why_idle
from sis_core.backends.numpy import NumpyBackend
from sis_core.errors import BackendError, package_for
from sis_core.registry import Registry

log = logging.getLogger(__name__)


def missing_kernels(registry: Registry, chosen: Sequence[Backend]) -> str | None:
    """One line where numpy runs models for want of a package of kernels that exists for this machine, else None."""
    package = package_for("kernels", platform.machine())
    if package is None or not isinstance(chosen[0], NumpyBackend):
        return None
    for plugin in registry.plugins:
        if plugin.origin == package:  # installed: why it does not work is in `sis doctor`
            return None if plugin.error is None else f"the package {package} is installed, but {plugin.error}"
    if package.removeprefix("sis-") in registry.disabled:
        return None
    return f"numpy does the arithmetic, which is slow: kernels for this machine come with `pip install {package}`"


def choose_backends(registry: Registry, name: str | None) -> list[Backend]:
    """The backends to ask, in order. A named one is asked alone (the numpy reference fills what it leaves)."""
    if name is None:
        chosen = usable(registry.records("backends"))
        if not chosen:
            raise BackendError("no backend works on this machine", where="--backend")
        if (missing := missing_kernels(registry, chosen)) is not None:
            log.warning("%s", missing)
        return chosen
    backend: Backend = registry.get("backends", name, where="--backend")
    if reason := why_idle(backend):
        raise BackendError(f"cannot work here: {reason}", where=f"backend {name}", fix="choose another with --backend")
    return [backend]
