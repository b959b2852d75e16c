"""Which files of a repository are a model in safetensors."""

from __future__ import annotations

from collections.abc import Collection

from sis_hub.convert.checkpoint import COMPANIONS, CONFIG


def checkpoint_files(paths: Collection[str]) -> list[str]:
    """The weights and what a conversion reads beside them; empty when there is no such model.

    Where a repository has weights under several names, those called ``model`` are taken.
    """
    weights = sorted(path for path in paths if path.endswith(".safetensors") and "/" not in path)
    weights = [path for path in weights if path.startswith("model")] or weights
    if CONFIG not in paths or not weights:
        return []
    return [*(name for name in COMPANIONS if name in paths), *weights]
