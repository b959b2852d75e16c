"""Tools and thoughts by each API: the model says what a scripted sampler makes it say."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

ARGUMENTS = {"where": "the coop", "times": 2}
PROPERTIES = {"where": {"type": "string"}, "times": {"type": "integer"}}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": ["where", "times"]}
CALLS, THINKS, CALLS_TWICE = 1, 2, 3
SAID = {"role": "user", "content": "How many hens are there?"}


def named(text: str) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("event", ""), fields["data"]))
    return [(name, json.loads(data) if data != "[DONE]" else data) for name, data in found]


class TestChatCompletions:
    PATH = "/v1/chat/completions"
    TOOL: ClassVar[dict[str, Any]] = {
        "type": "function",
        "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA},
    }
    BODY: ClassVar[dict[str, Any]] = {"messages": [SAID], "tools": [TOOL], "script": CALLS}

    def test_a_call(self, calling: Any) -> None:
        choice = calling.post(self.PATH, self.BODY).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "look"
        assert json.loads(call["function"]["arguments"]) == ARGUMENTS
        assert choice["message"]["content"].strip() == "I shall look."

    def test_two_calls_in_a_stream(self, calling: Any) -> None:
        body = {**self.BODY, "script": CALLS_TWICE, "stream": True}
        chunks = [data for _, data in named(calling.post(self.PATH, body).text)][:-1]
        pieces = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
        for index in (0, 1):
            mine = [piece for piece in pieces if piece["index"] == index]
            assert mine[0]["function"]["name"] == "look"
            assert json.loads("".join(piece["function"]["arguments"] for piece in mine)) == ARGUMENTS
        assert len({piece["id"] for piece in pieces if "id" in piece}) == 2
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

    def test_a_thought(self, calling: Any) -> None:
        message = calling.post(self.PATH, {"messages": [SAID], "script": THINKS}).json()["choices"][0]["message"]
        assert message["reasoning_content"].strip() == "Is there a hen?"
        assert message["content"].strip() == "There are two hens."

    @pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
    def test_a_call_that_must_come_does(self, calling: Any, choice: Any) -> None:
        place = {"type": "object", "properties": {"where": {"enum": ["coop", "barn"]}}, "required": ["where"]}
        tool = {
            "type": "function",
            "function": {"name": "look", "parameters": {**place, "additionalProperties": False}},
        }
        body = {"messages": [SAID], "tools": [tool], "tool_choice": choice, "max_tokens": 200, "temperature": 0}
        message = calling.post(self.PATH, body).json()["choices"][0]["message"]
        call = message["tool_calls"][0]["function"]
        assert call["name"] == "look"
        assert json.loads(call["arguments"])["where"] in ("coop", "barn")

    def test_a_result_is_read(self, calling: Any) -> None:
        message = calling.post(self.PATH, self.BODY).json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "two hens"}
        body = {**self.BODY, "messages": [SAID, message, result], "script": THINKS}
        after = calling.post(self.PATH, body).json()
        assert after["choices"][0]["finish_reason"] == "stop"
        assert after["usage"]["prompt_tokens_details"]["cached_tokens"] > 30


class TestMessages:
    PATH = "/v1/messages"
    TOOL: ClassVar[dict[str, Any]] = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}
    BODY: ClassVar[dict[str, Any]] = {
        "model": "tiny",
        "max_tokens": 200,
        "messages": [SAID],
        "tools": [TOOL],
        "script": CALLS,
    }

    def test_a_call(self, calling: Any) -> None:
        answer = calling.post(self.PATH, self.BODY).json()
        assert [block["type"] for block in answer["content"]] == ["text", "tool_use"]
        assert answer["content"][1]["input"] == ARGUMENTS
        assert answer["stop_reason"] == "tool_use"

    def test_a_stream_is_the_whole(self, calling: Any) -> None:
        for script in (CALLS, THINKS, CALLS_TWICE):
            whole = calling.post(self.PATH, {**self.BODY, "script": script}).json()
            events = named(calling.post(self.PATH, {**self.BODY, "script": script, "stream": True}).text)
            assert all(name == data["type"] for name, data in events)
            assert [events[0][0], events[-2][0], events[-1][0]] == ["message_start", "message_delta", "message_stop"]
            blocks: list[dict[str, Any]] = []
            for name, data in events:
                if name == "content_block_start":
                    blocks.append({**data["content_block"], "json": ""})
                    assert data["index"] == len(blocks) - 1
                elif name == "content_block_delta":
                    delta = data["delta"]
                    kind = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"], "json")
                    blocks[-1][kind] += delta.get(kind, delta.get("partial_json"))
            for block, expected in zip(blocks, whole["content"], strict=True):
                text = block.pop("json")
                if block["type"] == "tool_use":
                    block["input"] = json.loads(text)
                    expected["id"] = block["id"]
                assert block == expected
            assert events[-2][1]["delta"]["stop_reason"] == whole["stop_reason"]

    def test_results_and_thoughts_are_read(self, calling: Any) -> None:
        said = calling.post(self.PATH, self.BODY).json()["content"]
        thought = {"type": "thinking", "thinking": "hm", "signature": ""}
        result = {"type": "tool_result", "tool_use_id": said[1]["id"], "content": [{"type": "text", "text": "two"}]}
        messages = [SAID, {"role": "assistant", "content": [thought, *said]}, {"role": "user", "content": [result]}]
        body = {**self.BODY, "messages": messages, "system": [{"type": "text", "text": "Be brief."}], "script": THINKS}
        answer = calling.post(self.PATH, body).json()
        assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
        counted = {name: body[name] for name in ("messages", "system", "tools", "model")}
        count = calling.post(f"{self.PATH}/count_tokens", counted).json()["input_tokens"]
        usage = answer["usage"]
        assert count == usage["input_tokens"] + usage["cache_read_input_tokens"]

    def test_the_stop_sequence_is_named(self, calling: Any) -> None:
        body = {**self.BODY, "script": THINKS, "stop_sequences": ["zebra", " hens"]}
        answer = calling.post(self.PATH, body).json()
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", " hens")

    def test_a_beginning_is_gone_on_from(self, calling: Any) -> None:
        body = {"max_tokens": 3, "messages": [SAID, {"role": "assistant", "content": "There are"}], "temperature": 0}
        assert calling.post(self.PATH, body).json()["usage"]["output_tokens"] == 3

    @pytest.mark.parametrize(
        "changes",
        [{"max_tokens": 0}, {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
         {"messages": [{"role": "tool", "content": "x"}]}, {"messages": [{"role": "user", "content": 7}]},
         {"tools": [{"type": "bash_20250124", "name": "bash"}]}, {"tool_choice": {"type": "tool"}}, {"n": 2},
         {"tools": [], "tool_choice": {"type": "any"}}, {"system": [{"type": "image"}]}, {"stop_sequences": [""]}],
    )  # fmt: skip
    def test_refusals(self, calling: Any, changes: dict[str, Any]) -> None:
        answer = calling.post(self.PATH, {**self.BODY, **changes})
        assert answer.status_code == 400
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["type"] == "invalid_request_error"


class TestResponses:
    PATH = "/v1/responses"
    TOOL: ClassVar[dict[str, Any]] = {
        "type": "function",
        "name": "look",
        "description": "Looks.",
        "parameters": SCHEMA,
        "strict": True,
    }
    BODY: ClassVar[dict[str, Any]] = {"input": "How many hens are there?", "tools": [TOOL], "script": CALLS}

    def test_a_call(self, calling: Any) -> None:
        answer = calling.post(self.PATH, self.BODY).json()
        assert [item["type"] for item in answer["output"]] == ["message", "function_call"]
        assert json.loads(answer["output"][1]["arguments"]) == ARGUMENTS
        assert answer["status"] == "completed"

    def test_a_stream_ends_with_the_whole(self, calling: Any) -> None:
        for script in (CALLS, THINKS, CALLS_TWICE):
            events = named(calling.post(self.PATH, {**self.BODY, "script": script, "stream": True}).text)
            assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
            assert events[0][0] == "response.created"
            name, last = events[-1]
            assert name == "response.completed"
            done = [data["item"] for name, data in events if name == "response.output_item.done"]
            assert done == last["response"]["output"]
            for item in done:
                deltas = [d["delta"] for n, d in events if n.endswith(".delta") and d["item_id"] == item["id"]]
                text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
                assert "".join(deltas) == text

    def test_a_response_is_gone_on_from(self, calling: Any) -> None:
        first = calling.post(self.PATH, {**self.BODY, "instructions": "Be brief."}).json()
        result = {"type": "function_call_output", "call_id": first["output"][1]["call_id"], "output": "two hens"}
        after = {**self.BODY, "previous_response_id": first["id"], "input": [result], "script": THINKS}
        second = calling.post(self.PATH, after).json()
        assert [item["type"] for item in second["output"]] == ["reasoning", "message"]
        items = [{"role": "user", "content": self.BODY["input"]}, *first["output"], result]
        stateless = calling.post(self.PATH, {**self.BODY, "input": items, "script": THINKS}).json()
        assert stateless["usage"]["input_tokens"] == second["usage"]["input_tokens"]
        assert stateless["usage"]["input_tokens_details"]["cached_tokens"] == second["usage"]["input_tokens"] - 1

    def test_what_is_not_kept_cannot_be_gone_on_from(self, calling: Any) -> None:
        first = calling.post(self.PATH, {**self.BODY, "store": False}).json()
        for id in (first["id"], "resp_x"):
            assert calling.post(self.PATH, {**self.BODY, "previous_response_id": id}).status_code == 404

    def test_what_agents_send_beside_is_no_error(self, calling: Any) -> None:
        beside = {"include": ["reasoning.encrypted_content"], "prompt_cache_key": "x", "client_metadata": {"a": "b"},
                  "tools": [self.TOOL, {"type": "web_search"}, {"type": "namespace", "name": "x", "tools": []}],
                  "reasoning": {"effort": "low"}, "parallel_tool_calls": False, "store": False}  # fmt: skip
        assert calling.post(self.PATH, {**self.BODY, **beside}).status_code == 200

    def test_a_reply_that_is_cut_is_incomplete(self, calling: Any) -> None:
        answer = calling.post(self.PATH, {**self.BODY, "max_output_tokens": 2}).json()
        assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})

    @pytest.mark.parametrize(
        "changes",
        [{"input": 7}, {"input": [{"type": "item_reference", "id": "x"}]}, {"tools": [{"type": "magic"}]},
         {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, {"tool_choice": "perhaps"},
         {"max_output_tokens": 0}, {"text": {"format": {"type": "xml"}}}, {"input": []}, {"input": [{"role": "x"}]}],
    )  # fmt: skip
    def test_refusals(self, calling: Any, changes: dict[str, Any]) -> None:
        answer = calling.post(self.PATH, {**self.BODY, **changes})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
