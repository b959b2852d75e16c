"""What a file of answers says of whom answered: it is gone on with only by the same."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from sis_core.loading.alike import identity
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel

ASIDE = {"sources", "drafters", "clusters", "commands"}  # kinds of parts that no answer depends on


def heading(model: LanguageModel, *, template: str | None, cache_tokens: int | None) -> dict[str, str]:
    """All that answers depend on beside the requests, by name. Threads, drafts, stages and machines are not of it.

    Args:
        template: as for `LanguageModel.chat_format`; a file is known by its bytes.
        cache_tokens: what was asked for, or None; it matters where it is shorter than the context.
    """
    n_ctx, registry, preset = model.config.n_ctx, model.registry, model.preset
    found = {
        "kv_type": model.options.kv_type,
        "n_ctx": str(n_ctx),
        "context": str(model.context),
        "template": "" if template is None else _template(template, registry),
        "on_error": model.on_error,
        "degraded": str(model.degraded),
        "batch_invariant": str(model.forward.batch_invariant),
        "defaults": json.dumps([dict(preset.options), preset.stop, preset.system], sort_keys=True, default=str),
        "prefer": json.dumps(registry.prefer, sort_keys=True),
        "sis-server": version("sis-server"),
    }
    if cache_tokens is not None and cache_tokens < n_ctx:
        found["cache"] = str(cache_tokens)
    registry.load_all()
    others = {f"plugin {plugin.name}" for plugin in registry.plugins if plugin.offers.keys() <= ASIDE}
    known = {key: value for key, value in identity(model).items() if key not in others}
    plugins = {key: known.pop(key) for key in list(known) if key.startswith("plugin ")}
    return known | found | plugins


def _template(template: str, registry: Registry) -> str:
    if registry.find("chat_formats", template) is not None:
        return template
    return hashlib.sha256(Path(template).expanduser().read_bytes()).hexdigest()
