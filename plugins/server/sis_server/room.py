"""How many tokens a server keeps, where nobody says."""

from __future__ import annotations

from sis_core.stages.backend import free_nbytes
from sis_core.texts.language_model import LanguageModel

SHARE = 4  # of the free memory
TEXTS = 8  # of a whole context each


def cache_tokens_for(model: LanguageModel) -> int:
    """Tokens that a quarter of the free memory holds: at least one text of the context, at most eight."""
    n_ctx = model.config.n_ctx
    size = model.forward.cache_nbytes(model.options.kv_type, n_ctx) / n_ctx
    return min(max(n_ctx, int(free_nbytes(model) / SHARE / max(size, 1))), TEXTS * n_ctx)
