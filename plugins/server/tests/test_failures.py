"""A failure in the middle of a stream: every API says so in its own words, and the engine goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Once"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100},
}


@pytest.fixture
def failing(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose third step from now on fails."""
    scheduler, steps = server.served.engine._scheduler, iter(range(3))
    step = scheduler.session.run

    def run(*args: Any, **options: Any) -> Any:
        if next(steps, None) is None:
            monkeypatch.undo()
            raise RuntimeError("the backend burnt down")
        return step(*args, **options)

    monkeypatch.setattr(scheduler.session, "run", run)
    return server


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_says_what_went_wrong(failing: Any, path: str) -> None:
    answer = failing.post(path, {**BODIES[path], "stream": True, "ignore_eos": True})
    assert answer.status_code == 200
    blocks = answer.text.strip().split("\n\n")
    last = json.loads(blocks[-1].rpartition("data: ")[2])
    error = last.get("error", last)
    assert "burnt down" in error["message"]
    if path in ("/v1/messages", "/v1/responses"):
        assert blocks[-1].startswith("event: error")
        assert last["type"] == "error"
    assert failing.post(path, {**BODIES[path]}).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_an_answer_says_what_went_wrong(failing: Any, path: str) -> None:
    answer = failing.post(path, {**BODIES[path], "ignore_eos": True})
    assert answer.status_code == 500
    assert "burnt down" in answer.json()["error"]["message"]
