"""Embeddings over loopback."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

PATH = "/v1/embeddings"


def test_vectors_are_the_models(server: Any) -> None:
    model = server.served.model
    texts = ["Two hens.", "A goat went home."]
    answer = server.post(PATH, {"input": texts, "model": "tiny"}).json()
    found = np.array([entry["embedding"] for entry in answer["data"]])
    np.testing.assert_allclose(found, model.embed(texts), atol=1e-3)
    assert answer["usage"]["prompt_tokens"] == sum(len(model.tokenize(text)) for text in texts)
    coded = server.post(PATH, {"input": model.tokenize(texts[0]), "encoding_format": "base64"}).json()
    data = base64.b64decode(coded["data"][0]["embedding"])
    np.testing.assert_allclose(np.frombuffer(data, "<f4"), found[0], atol=1e-3)


def test_clients_may_send_hundreds_at_once(server: Any) -> None:
    answer = server.post(PATH, {"input": [f"{i} hens" for i in range(200)]})
    assert answer.status_code == 200
    assert [entry["index"] for entry in answer.json()["data"]] == list(range(200))


@pytest.mark.parametrize(
    "body",
    [{"input": ""}, {"input": []}, {"input": [[]]}, {"input": [10**6]}, {"input": "x", "dimensions": 8}, {},
     {"input": "x", "encoding_format": "int8"}, {"input": "x", "temperature": 1}, {"input": "hen " * 9000},
     {"input": ["hen"] * 2049}],
)  # fmt: skip
def test_refusals(server: Any, body: dict[str, Any]) -> None:
    assert server.post(PATH, body).status_code == 400
