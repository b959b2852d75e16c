"""The clients that people have: each is skipped where it is not installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

CALLS, THINKS = 1, 2
HELLO = [{"role": "user", "content": "How many hens are there?"}]
PARAMETERS = {"type": "object", "properties": {"where": {"type": "string"}, "times": {"type": "integer"}}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}


@pytest.fixture(scope="module")
def openai_client(calling: Any) -> Any:
    openai = pytest.importorskip("openai", reason="the package openai is not installed")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{calling.port}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(calling: Any) -> Any:
    anthropic = pytest.importorskip("anthropic", reason="the package anthropic is not installed")
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{calling.port}", api_key="none", max_retries=0) as client:
        yield client


class TestOpenAI:
    @pytest.fixture
    def client(self, openai_client: Any) -> Any:
        return openai_client

    def test_a_stream(self, client: Any) -> None:
        options: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0, "seed": 1}
        whole = client.chat.completions.create(**options)
        stream = client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8

    def test_tools_in_a_loop(self, client: Any) -> None:
        first = client.chat.completions.create(model="tiny", messages=HELLO, tools=[LOOK], extra_body={"script": CALLS})
        message = first.choices[0].message
        assert json.loads(message.tool_calls[0].function.arguments) == {"where": "the coop", "times": 2}
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "two hens"}
        second = client.chat.completions.create(
            model="tiny", messages=[*HELLO, message, result], tools=[LOOK], extra_body={"script": THINKS}
        )
        assert "two hens" in second.choices[0].message.content

    def test_a_parsed_answer(self, client: Any) -> None:
        pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")
        Hens = pydantic.create_model("Hens", n=(bool, ...), m=(bool, ...))  # noqa: N806 - a class
        done = client.chat.completions.parse(
            model="tiny", messages=HELLO, response_format=Hens, max_tokens=80, extra_body={"compact_json": True}
        )
        assert isinstance(done.choices[0].message.parsed, Hens)

    def test_logprobs_of_several(self, client: Any) -> None:
        done = client.chat.completions.create(
            model="tiny", messages=HELLO, n=2, logprobs=True, top_logprobs=3, max_tokens=4
        )
        assert [len(choice.logprobs.content) for choice in done.choices] == [4, 4]
        assert len(done.choices[0].logprobs.content[0].top_logprobs) == 3

    def test_an_echo(self, client: Any) -> None:
        done = client.completions.create(model="tiny", prompt="Two hens", max_tokens=1, echo=True, logprobs=1)
        assert done.choices[0].text.strip().startswith("Two hens")
        assert done.choices[0].logprobs.token_logprobs[0] is None

    def test_responses(self, client: Any) -> None:
        tool = {"type": "function", "name": "look", "parameters": PARAMETERS, "strict": False}
        options: dict[str, Any] = {"model": "tiny", "tools": [tool]}
        with client.responses.stream(input=HELLO, **options, extra_body={"script": CALLS}) as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_response()
        assert kinds[-1] == "response.completed"
        call = next(item for item in first.output if item.type == "function_call")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "two hens"}
        second = client.responses.create(
            input=[result], previous_response_id=first.id, **options, extra_body={"script": THINKS}
        )
        assert "two hens" in second.output_text

    def test_models_and_errors(self, client: Any) -> None:
        import openai

        assert [model.id for model in client.models.list()] == ["tiny", "other"]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-4", messages=HELLO)
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="tiny", prompt="hen " * 9000)
        assert caught.value.code == "context_length_exceeded"


class TestAnthropic:
    TOOL = ({"name": "look", "description": "Looks.", "input_schema": PARAMETERS},)

    @pytest.fixture
    def client(self, anthropic_client: Any) -> Any:
        return anthropic_client

    def test_a_stream_with_a_call(self, client: Any) -> None:
        options: dict[str, Any] = {"model": "tiny", "max_tokens": 300, "tools": list(self.TOOL)}
        with client.messages.stream(messages=HELLO, **options, extra_body={"script": CALLS}) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "tool_use"
        call = next(block for block in message.content if block.type == "tool_use")
        assert call.input == {"where": "the coop", "times": 2}
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "two hens"}
        messages = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        after = client.messages.create(messages=messages, **options, extra_body={"script": THINKS})
        assert [block.type for block in after.content] == ["thinking", "text"]

    def test_tokens_are_counted(self, client: Any) -> None:
        counted = client.messages.count_tokens(model="tiny", messages=HELLO)
        done = client.messages.create(model="tiny", messages=HELLO, max_tokens=1)
        assert counted.input_tokens == done.usage.input_tokens + done.usage.cache_read_input_tokens

    def test_an_error_is_theirs(self, client: Any) -> None:
        import anthropic

        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(model="tiny", messages=HELLO, max_tokens=1, extra_body={"temperature": -1})
