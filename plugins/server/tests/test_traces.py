"""Where the time of a request went: by its id, and in the log."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from sis_server.guard import LOOPBACK, Rules
from sis_server.json_log import JsonLines
from sis_server.tracing import KEPT, Trace, Traces

BODY = {"prompt": "Once upon a time there was a hen.", "max_tokens": 5, "ignore_eos": True, "n": 2}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_can_be_asked_where_its_time_went(server: Any, stream: bool) -> None:
    answer = server.post("/v1/completions", BODY | {"stream": stream})
    id = answer.headers["x-request-id"]
    server.until(lambda: server.client.get(f"/traces/{id}").json()["seconds"] is not None)
    told = server.client.get(f"/traces/{id}").json()
    assert (told["path"], told["status"], told["model"]) == ("/v1/completions", 200, "tiny")
    assert [text["generated_tokens"] for text in told["texts"]] == [5, 5]
    for text in told["texts"]:
        assert text["reason"] == "length"
        assert text["first_token"] == pytest.approx(text["queue"] + text["prefill"], abs=1e-5)
        assert min(text["queue"], text["prefill"], text["decode"]) >= 0
        assert text["first_token"] + text["decode"] <= told["seconds"]


def test_a_client_may_name_its_request(server: Any) -> None:
    answer = server.post("/v1/completions", BODY, headers={"x-request-id": "mine-12345"})
    assert answer.headers["x-request-id"] == "mine-12345"
    assert server.client.get("/traces/mine-12345").json()["status"] == 200
    for odd in ("x", "a b c d e f", "x" * 100, "../../etc/passwd"):
        given = server.post("/v1/completions", BODY, headers={"x-request-id": odd}).headers["x-request-id"]
        assert given != odd
    assert server.client.get("/traces/nobody-asked").status_code == 404


def test_what_is_refused_is_traced_too(server: Any) -> None:
    answer = server.post("/v1/completions", {"prompt": ""})
    told = server.client.get(f"/traces/{answer.headers['x-request-id']}").json()
    assert (told["status"], told["texts"]) == (400, [])


def test_nobody_else_may_ask(serve: Any) -> None:
    with serve(Rules(("one", "other"), LOOPBACK)) as server:
        answer = server.post("/v1/completions", BODY, headers={"x-api-key": "one"})
        path = f"/traces/{answer.headers['x-request-id']}"
        statuses = [server.client.get(path, headers={"x-api-key": key}).status_code for key in ("one", "other")]
        assert statuses == [200, 404]


def test_the_oldest_are_forgotten() -> None:
    traces = Traces()
    for i in range(KEPT + 5):
        traces.add(Trace(f"request-{i}", "GET", "/"))
    assert traces.find("request-4", "") is None
    assert traces.find("request-5", "") is not None


def test_the_log_has_a_line_of_json_for_each(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sis_server.tracing"):
        id = server.post("/v1/completions", BODY).headers["x-request-id"]
        server.client.get("/health")
        server.until(lambda: any(getattr(record, "request", {}).get("id") == id for record in caplog.records))
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    (line,) = [line for line in lines if line["request"]["id"] == id]
    assert line["message"] == "POST /v1/completions 200"
    assert line["request"]["texts"][0]["generated_tokens"] == 5
    assert not any(line["request"]["path"] == "/health" for line in lines)


def test_no_escape_leaves_the_log_raw() -> None:
    try:
        raise ValueError("\x1b[31m red")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "\x1b]0;title %s", ("\n",), None)
        record.exc_info = __import__("sys").exc_info()
    text = JsonLines().format(record)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["error"].endswith("red")
