"""What the server refuses: each with a status below 500 and a message that names what is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sis_server.errors import ApiError
from sis_server.guard import LOOPBACK, Rules
from sis_server.receiving import Limits

from sis_core.texts.context import Sinks

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def deep(n: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(n):
        schema = {"type": "array", "items": schema}
    return schema


def formed(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


FIELDS = {
    "temperature: negative": ({"temperature": -1}, "temperature"),
    "temperature: text": ({"temperature": "hot"}, "temperature"),
    "temperature: flag": ({"temperature": True}, "temperature"),
    "top_p: above": ({"top_p": 7}, "top_p"),
    "top_p: nothing": ({"top_p": 0}, "top_p"),
    "top_p: below": ({"top_p": -0.1}, "top_p"),
    "top_k: negative": ({"top_k": -1}, "top_k"),
    "top_k: more than there are": ({"top_k": 10**6}, "top_k"),
    "min_p": ({"min_p": 1.5}, "min_p"),
    "penalty": ({"repeat_penalty": 1e9}, "repeat_penalty"),
    "penalty: below": ({"frequency_penalty": -101}, "frequency_penalty"),
    "dry_breakers": ({"dry_breakers": "x"}, "dry_breakers"),
    "max_tokens: none": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens: negative": ({"max_tokens": -1}, "max_tokens"),
    "max_tokens: huge": ({"max_tokens": 2**40}, "max_tokens"),
    "max_tokens: fraction": ({"max_tokens": 1.5}, "max_tokens"),
    "n": ({"n": 17}, "$.n"),
    "seed": ({"seed": 2**70}, "seed"),
    "stop: empty": ({"stop": ""}, "stop"),
    "stop: one of them empty": ({"stop": ["a", ""]}, "stop"),
    "stop: too many": ({"stop": ["a"] * 17}, "stop"),
    "stop: too long": ({"stop": "a" * 1025}, "stop"),
    "logit_bias: id": ({"logit_bias": {"999999999": 1}}, "999999999"),
    "logit_bias: no id": ({"logit_bias": {"-1": 1}}, "token id"),
    "logit_bias: value": ({"logit_bias": {"1": 101}}, "bias of 1"),
    "logit_bias: too many": ({"logit_bias": {str(i): 1 for i in range(1025)}}, "1024"),
    "unknown": ({"tempratur": 1}, "did you mean 'temperature'"),
    "internal": ({"n_keep": 5}, "n_keep"),
    "internal too": ({"n_discard": 5}, "n_discard"),
    "priority": ({"priority": 5}, "priority"),
    "no tier": ({"service_tier": "first class"}, "service_tier"),
    "a file of a sampler": ({"grammar": "/etc/passwd"}, "grammar"),
    "a schema's file": ({"schema": "/etc/passwd"}, "schema"),
    "regex": ({"regex": "("}, "regex"),
    "regex: look-around": ({"regex": "(?=a)b"}, "regex"),
    "grammar": ({"grammar": "root ::= nothing"}, "grammar"),
    "grammar: nested": ({"grammar": "root ::= " + "(" * 1100 + '"a"' + ")" * 1100}, "grammar"),
    "response_format": ({"response_format": {"type": "xml"}}, "json_schema"),
    "response_format: more": ({"response_format": {"type": "text", "schem": 1}}, "schem"),
    "response_format: more in the schema's": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strct": True}}},
        "did you mean 'strict'",
    ),
    "response_format: no kind": ({"response_format": {"type": ["text"]}}, "json_schema"),
    "schema: not": (formed({"not": {"type": "integer"}}), "not"),
    "schema: a bad pattern": (formed({"type": "string", "pattern": "("}), "schema"),
    "schema: too big": (formed({"enum": ["x" * 300_000]}), "schema"),
    "schema: elsewhere": (formed({"$ref": "http://example.org/x"}), "schema"),
    "schema: nested": (formed(deep(110)), "nested"),
    "stream": ({"stream": "yes"}, "stream"),
    "stream_options": ({"stream_options": {"x": 1}}, "stream_options"),
    "model": ({"model": "gpt-4"}, "gpt-4"),
    "model: a path": ({"model": "../../etc/passwd"}, "passwd"),
}
OF_CHAT = {
    "top_logprobs: too many": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "top_logprobs: alone": ({"top_logprobs": 2}, "logprobs"),
    "messages: none": ({"messages": []}, "messages"),
    "messages: no role": ({"messages": [{"content": "x"}]}, "role"),
    "messages: a role of its own": ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
    "messages: text": ({"messages": "x"}, "messages"),
    "messages: content": ({"messages": [{"role": "user", "content": 7}]}, "content"),
    "tools: malformed": ({"tools": [{"type": "function"}]}, "function"),
    "tools: no object": ({"tools": ["x"]}, "tools"),
    "tools that this template cannot call": ({"tools": [TOOL]}, "tools"),
    "tool_choice": ({"tool_choice": "perhaps"}, "tool_choice"),
    "tool_choice: without tools": ({"tool_choice": "required"}, "tools"),
    "template options": ({"chat_template_kwargs": {"messages": []}}, "messages"),
    "template options: of Python": ({"chat_template_kwargs": {"self": 1}}, "self"),
    "max_tokens: two": ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    "template options: tokens": ({"chat_template_kwargs": {"bos_token": "x"}}, "bos_token"),
    "template": ({"chat_template": "{{ x }}"}, "chat_template"),
    "too long": ({"messages": [{"role": "user", "content": "hen " * 9000}]}, "context"),
}
OF_TEXT = {
    "prompt: empty": ({"prompt": ""}, "prompt"),
    "prompt: none": ({"prompt": []}, "prompt"),
    "prompt: an empty list": ({"prompt": [[]]}, "prompt"),
    "prompt: mixed": ({"prompt": ["a", 3]}, "prompt"),
    "prompt: ids": ({"prompt": [10**6]}, "1000000"),
    "prompt: negative": ({"prompt": [-1]}, "-1"),
    "prompt: huge": ({"prompt": [2**80]}, "prompt"),
    "best_of": ({"best_of": 3}, "best_of"),
    "logprobs": ({"logprobs": 21}, "logprobs"),
    "suffix": ({"suffix": "x"}, "suffix"),
}


OF_RESPONSES = {
    "text": ({"text": {"format": 5}}, "text.format"),
    "text: unknown": ({"text": {"formt": {"type": "text"}}}, "formt"),
    "text: a schema that is none": ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
    "tools: a kind that is no name": ({"tools": [{"type": ["x"]}]}, "tools[0]"),
    "tools: numbers": ({"tools": [5]}, "tools"),
    "reasoning": ({"reasoning": {"effort": 5}}, "effort"),
    "reasoning: unknown": ({"reasoning": {"efort": "low"}}, "efort"),
}
OF_MESSAGES = {
    "thinking": ({"thinking": {"type": "disabeld"}}, "disabeld"),
    "thinking: budget": ({"thinking": {"type": "enabled", "budget_tokens": -5}}, "budget_tokens"),
    "thinking: unknown": ({"thinking": {"type": "enabled", "budget": 5}}, "budget"),
    "template options": ({"chat_template_kwargs": {"self": 1}}, "self"),
}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        *(
            pytest.param("/v1/responses", {"input": "x", **body}, named, id=name)
            for name, (body, named) in OF_RESPONSES.items()
        ),
        *(pytest.param(CHAT, {"messages": HELLO, **body}, named, id=name) for name, (body, named) in FIELDS.items()),
        *(pytest.param(CHAT, {"messages": HELLO, **body}, named, id=name) for name, (body, named) in OF_CHAT.items()),
        *(pytest.param(TEXT, {"prompt": "x", **body}, named, id=name) for name, (body, named) in OF_TEXT.items()),
    ],
)
def test_a_field_is_refused(server: Any, path: str, body: dict[str, Any], named: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code == (404 if "model" in body else 400)
    error = answer.json()["error"]
    assert named in f"{error['message']} {error['param']}"
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("body", "named"), OF_MESSAGES.values(), ids=OF_MESSAGES)
def test_a_field_of_messages_is_refused(server: Any, body: dict[str, Any], named: str) -> None:
    answer = server.post("/v1/messages", {"messages": HELLO, "max_tokens": 2, **body})
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_a_context_that_overflows_says_so(server: Any) -> None:
    answer = server.post(TEXT, {"prompt": "hen " * 9000})
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_with_sinks_a_prompt_outgrows_the_context(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served, long = server.served, [7] * (server.served.engine.n_ctx + 50)
    with pytest.raises(ApiError, match="tokens, and the context"):
        served.checked(served.model.request(long))
    monkeypatch.setattr(served.model, "context", Sinks(4))
    assert served.checked(served.model.request(long)).outgrows


def test_fields_of_clients_that_change_nothing_are_ignored(server: Any) -> None:
    ignored = {"user": "me", "store": True, "metadata": {"a": "b"}, "parallel_tool_calls": False, "top_p": None}
    assert server.post(CHAT, {"messages": HELLO, "max_tokens": 1, **ignored}).status_code == 200


BODIES = {
    "no JSON": b"{",
    "not an object": b"[1]",
    "not UTF-8": b'{"prompt": "\xff"}',
    "NaN": b'{"prompt": "x", "temperature": NaN}',
    "Infinity": b'{"prompt": "x", "temperature": Infinity}',
    "a number that no float holds": b'{"prompt": "x", "temperature": 1e400}',
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "twice": b'{"prompt": "x", "max_tokens": 1, "max_tokens": 2}',
    "twice within": b'{"prompt": "x", "logit_bias": {"1": 1, "1": 2}}',
    "nested": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested, and text that hides it": b'{"prompt": "\\"]]]", "x": ' + b"[" * 70 + b"]" * 70 + b"}",
    "a text that never ends": b'{"prompt": "' + b'\\"' * 3_000_000,
    "a text that ends in a backslash": b'{"prompt": ' + b'"\\' * 3_000_000,
    "empty": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_refused(server: Any, body: bytes) -> None:
    answer = server.client.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_browser_may_send_without_asking_is_refused(server: Any, kind: str) -> None:
    body = json.dumps({"prompt": "x"}).encode()
    assert server.client.post(TEXT, content=body, headers={"content-type": kind}).status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_a_host_of_another_name_is_refused(server: Any, host: str) -> None:
    assert server.client.get("/v1/models", headers={"host": host}).status_code in (400, 403)
    assert server.client.get("/v1/models", headers={"host": f"localhost:{server.port}"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_of_another_server_is_refused(server: Any, origin: str) -> None:
    assert server.client.get("/v1/models", headers={"origin": origin}).status_code == 403
    own = f"http://127.0.0.1:{server.port}"
    assert server.client.get("/v1/models", headers={"origin": own}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2fetc", "/slots/0?action=save", "/x"]
)
def test_paths_name_no_files(server: Any, path: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_a_method_of_another_path_is_refused(server: Any) -> None:
    assert server.client.get(CHAT).status_code == 405


@pytest.fixture(scope="module")
def locked(serve: Any) -> Iterator[Any]:
    with serve(Rules(("first", "second"), LOOPBACK), Limits(body_bytes=1000, seconds=1.0)) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"authorization": "first"},
     {"authorization": "Basic first"}, {"x-api-key": "firs"}, {"x-api-key": "firstfirst"}],
)  # fmt: skip
def test_without_the_key_nothing_is_answered(locked: Any, headers: dict[str, str]) -> None:
    answer = locked.client.get("/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "first" not in answer.text


def test_any_of_the_keys_opens(locked: Any) -> None:
    for headers in ({"authorization": "Bearer first"}, {"x-api-key": "first"}):
        assert locked.client.get("/v1/models", headers=headers).status_code == 200
    assert locked.client.get("/health").status_code == 200


def test_what_one_key_read_is_not_shared_with_another(locked: Any) -> None:
    body = {"prompt": "Once there were two hens and a goat. " * 5, "max_tokens": 1}
    for key, known in ("first", False), ("second", False), ("first", True), ("second", True):
        usage = locked.post(TEXT, body, headers={"x-api-key": key}).json()["usage"]
        assert (usage["prompt_tokens_details"]["cached_tokens"] > 0) == known


def test_a_body_over_the_cap_is_refused(locked: Any) -> None:
    answer = locked.post(TEXT, {"prompt": "x" * 2000}, headers={"x-api-key": "first"})
    assert answer.status_code == 413


def test_a_body_that_is_compressed_is_refused(locked: Any) -> None:
    body = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
    headers = {"x-api-key": "first", "content-type": "application/json"}
    for content, coding, status in ((gzip.compress(body), "gzip", 415), (body, "GZIP", 415), (body, "identity", 200)):
        answer = locked.client.post(TEXT, content=content, headers={**headers, "content-encoding": coding})
        assert answer.status_code == status


def test_a_body_without_a_length_is_counted(locked: Any) -> None:
    parts = (b'"' + b"x" * 100 for _ in range(100))
    headers = {"x-api-key": "first", "content-type": "application/json"}
    assert locked.client.post(TEXT, content=parts, headers=headers).status_code == 413
