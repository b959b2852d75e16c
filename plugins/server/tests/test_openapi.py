"""What the server says of itself, and strangers who take it at its word: requests made from its own document."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from sis_server.fields import IGNORED
from sis_server.openapi import BODIES, READ, SAMPLED

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
LIMIT_OF = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
N_MADE = {"positive": 270, "negative": 40}  # requests of each path


def test_it_tells_of_every_path(server: Any) -> None:
    document = server.client.get("/openapi.json").json()
    assert set(document["paths"]) == {*BODIES, *READ}
    fields = document["components"]["schemas"]["ChatCompletion"]["properties"]
    assert {"messages", "tools", "temperature", "min_p", "dry_multiplier"} <= set(fields)
    assert fields["top_p"]["maximum"] == 1
    for path in READ:
        assert server.client.get(path).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_its_fields_are_those_that_are_read(server: Any, path: str) -> None:
    document = server.client.get("/openapi.json").json()
    kind, _ = BODIES[path]
    reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    properties = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    assert {field.name for field in msgspec.structs.fields(kind)} <= set(properties)


def test_the_readme_has_every_field() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    table = text[text.index("**Fields**") : text.index("**lm-eval**")]
    rows = {row.split("|")[1].strip(): set(re.findall("`([a-z_]+)`", row)) for row in table.splitlines() if "`" in row}
    everywhere = rows["all that generate"]
    kinds = {"chat completions": "/v1/chat/completions", "completions": "/v1/completions",
             "responses": "/v1/responses", "messages": "/v1/messages", "embeddings": "/v1/embeddings"}  # fmt: skip
    used: set[str] = set()
    for row, path in kinds.items():
        names = {field.name for field in msgspec.structs.fields(BODIES[path][0])}
        assert rows[row] | (everywhere if path in SAMPLED else set()) == names, row
        used |= names
    assert rows["accepted, without an effect"] == set(IGNORED)
    assert not rows["refused, by name"] & (used | set(IGNORED))


@pytest.mark.full
def test_no_request_that_its_document_allows_breaks_it(server: Any) -> None:
    """At least 2,000 requests from the document, right and wrong: none is the server's fault, many are answered."""
    schemathesis = pytest.importorskip("schemathesis", reason="the package schemathesis is not installed")
    from schemathesis.generation import GenerationMode

    seen: Counter[int] = Counter()
    broken: list[Any] = []
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            if operation.method == "get" and mode is GenerationMode.NEGATIVE:
                continue

            @settings(max_examples=N_MADE[mode.value], deadline=None, database=None, derandomize=True,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                content = {} if case.method.lower() == "get" else {"content": _content(case)}
                answer = server.client.request(
                    case.method, case.path, headers={"content-type": "application/json"}, **content
                )
                seen[answer.status_code] += 1
                if answer.status_code >= 500:
                    broken.append((case.path, content, answer.text))

            ask()
    assert broken == []
    assert seen.total() >= 2000
    assert seen[200] >= 0.3 * seen.total()


def _content(case: Any) -> bytes:
    """The body that was made, but for how much it asks for: a reply is one token, or two."""
    body = case.body
    if isinstance(body, bytes):
        return body
    if isinstance(body, dict):
        asked = [name for name in LIMITS if body.get(name) is not None] or [LIMIT_OF.get(case.path, "")]
        few = 1 + len(body) % 2
        body = body | {name: few for name in asked if name and isinstance(body.get(name) or few, int | float)}
    return json.dumps(body).encode()
