"""POST /v1/embeddings

Facts of the format: OpenAI's API reference, "Embeddings" (platform.openai.com/docs/api-reference/embeddings).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from sis_core.arrays import F32
from sis_core.texts.embedding import pooled, pooling_of
from sis_core.texts.request import Request
from sis_server.fields import Embeddings
from sis_server.following import Heard
from sis_server.openai_text import prompts_of
from sis_server.served import Served

MAX_INPUTS = 2048  # as OpenAI's


def prepare(served: Served, asked: Embeddings) -> list[Request]:
    """A request for each text. Slow: for a worker."""
    prompts = prompts_of(asked.input, served, "input", MAX_INPUTS)
    return [served.checked(Request(tokens, want="hidden")) for tokens in prompts]


async def write(
    served: Served, asked: Embeddings, requests: Sequence[Request], heard: AsyncGenerator[Heard]
) -> dict[str, Any]:
    """The vectors of all texts."""
    kind = pooling_of(served.model)
    found: list[dict[str, Any]] = [{} for _ in requests]
    async for said in heard:
        if said.piece.rows is not None:
            vector = _written(pooled(said.piece.rows, kind), asked.encoding_format)
            found[said.index] = {"object": "embedding", "index": said.index, "embedding": vector}
    n_prompt = sum(len(request.prompt) for request in requests)
    usage = {"prompt_tokens": n_prompt, "total_tokens": n_prompt}
    return {"object": "list", "data": found, "model": served.id, "usage": usage}


def _written(vector: F32, encoding: str) -> Any:
    """Numbers, or base64 of them as little-endian float32."""
    return vector.tolist() if encoding == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()
