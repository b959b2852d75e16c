"""`llm`'s models that make vectors of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm import ModelError
from llm.models import EmbeddingModel

from llm_sis.house import Resident
from sis_core.errors import SisError


class SisEmbeddingModel(EmbeddingModel):
    """Vectors of length 1, pooled as the model's file says."""

    batch_size = 64

    def __init__(self, model_id: str, resident: Resident) -> None:
        self.model_id, self._resident = model_id, resident

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        texts = [item if isinstance(item, str) else item.decode() for item in items]
        try:
            yield from self._resident.model.embed(texts).tolist()
        except SisError as error:
            raise ModelError(str(error)) from error
