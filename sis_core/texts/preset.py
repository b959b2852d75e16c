"""What a source has set for its model, as far as it can be used here."""

from __future__ import annotations

import logging

from attrs import evolve

from sis_core.registry import Registry
from sis_core.source import Preset
from sis_core.texts.chain_text import sampler_options

log = logging.getLogger(__name__)


def usable(preset: Preset, registry: Registry, where: str) -> Preset:
    """Without options of samplers that are not installed; what is left is logged in one line."""
    if preset == Preset():
        return preset
    known = {option.name for option in sampler_options(registry)}
    preset = evolve(preset, options={name: value for name, value in preset.options.items() if name in known})
    said = [f"{name} {value}" for name, value in preset.options.items()]
    said += [f"stop {', '.join(map(repr, preset.stop))}"] * bool(preset.stop)
    said += ["a system message"] * bool(preset.system) + [f"a context of {preset.n_ctx}"] * bool(preset.n_ctx)
    log.info("%s: its source has set %s", where, ", ".join(said) or "nothing that is known here")
    return preset
