"""How many tokens a server keeps, where nobody says."""

from __future__ import annotations

from sis_core.machine.memory import available_memory, memory_limit_or_free
from sis_core.texts.language_model import LanguageModel

SHARE = 4  # of the free memory
TEXTS = 8  # of a whole context each


def cache_tokens_for(model: LanguageModel) -> int:
    """Tokens that a quarter of the free memory holds: at least one text of the context, at most eight."""
    n_ctx = model.config.n_ctx
    size = model.forward.cache_nbytes(model.options.kv_type, n_ctx) / n_ctx
    free = min(memory_limit_or_free(model.memory_limit), available_memory())
    return min(max(n_ctx, int(free / SHARE / max(size, 1))), TEXTS * n_ctx)
