"""Writing a converted checkpoint into the cache: once, in pieces, and to the end or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock

from sis_core.registry import Registry
from sis_core.source import Progress
from sis_core.workbench.quantizer import Plan, make_plan, quantize_file
from sis_core.workbench.quantizer.plan import TensorPlan
from sis_hub.convert.view import CheckpointView

log = logging.getLogger(__name__)


def convert(
    folder: Path,
    target: Path,
    *,
    to: str = "",
    registry: Registry | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Path:
    """Write the checkpoint in ``folder`` as the GGUF file ``target``, unless that is there.

    Tensors are streamed one by one. A run that was killed goes on where it was; ``target`` appears when it is complete.
    One process works at a time, others wait.

    Args:
        to: a format or recipe for the matrices (``q4_0``); by default each keeps its own.
        registry: plugins to use; by default all that are installed.
        name: of the model; the folder's by default.

    Raises:
        SisError: the checkpoint is incomplete or damaged, its model is of no family that is known here, a format is
            missing, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.exists():
            return target
        registry = registry or Registry.load()
        view = CheckpointView(folder, registry, name=name)
        plan = make_plan(view, registry, to) if to else as_it_is(view)
        log.warning("%s: converted once to %s, %s", folder, plan.label, target)
        quantize_file(view, target, plan, progress=None if progress is None else lambda _, n, total: progress(n, total))
    return target


def as_it_is(view: CheckpointView) -> Plan:
    """Every tensor in the format that it has."""
    return Plan(view.label, [TensorPlan(info) for info in view.tensors.values()])
