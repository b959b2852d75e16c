"""OpenAI's older APIs, over loopback, with the built-in model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sis_core.cache.pages import PAGE_SIZE
from sis_core.sampler import log_softmax
from sis_core.source import Preset

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Tell me a tale of a hen."}]


def events(text: str) -> list[Any]:
    """The data of server-sent events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_reply_is_what_the_model_says(server: Any) -> None:
    body = {"messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 1}
    answer = server.post(CHAT, body).json()
    model = server.served.model
    said = model.chat(HELLO, template="chatml", max_tokens=12, temperature=0.0, seed=1)
    assert answer["choices"][0]["message"]["content"] == said.message["content"]
    assert answer["usage"]["completion_tokens"] == said.usage.n_generated
    assert answer["usage"]["prompt_tokens"] == said.usage.n_prompt


def test_a_stream_joined_is_the_whole_reply(server: Any) -> None:
    body = {"messages": HELLO, "max_tokens": 12, "temperature": 0.7, "seed": 5, "logprobs": True, "top_logprobs": 2}
    whole = server.post(CHAT, body).json()
    chunks = events(server.post(CHAT, body | {"stream": True, "stream_options": {"include_usage": True}}).text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(c["delta"].get("content", "") for c in choices) == whole["choices"][0]["message"]["content"]
    logprobs = [entry for c in choices if c["logprobs"] for entry in c["logprobs"]["content"]]
    told = whole["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in logprobs] == [entry["token"] for entry in told]
    assert [entry["logprob"] for entry in logprobs] == pytest.approx([entry["logprob"] for entry in told], abs=1e-3)
    assert all(len(entry["top_logprobs"]) == 2 for entry in told)
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(told)


def test_a_beginning_that_is_known_is_not_read_again(server: Any) -> None:
    body = {"messages": [{"role": "user", "content": "Once there were two hens and a goat. " * 8}], "max_tokens": 2}
    server.post(CHAT, body)
    usage = server.post(CHAT, body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_several_replies_have_seeds_of_their_own(server: Any) -> None:
    body = {"messages": HELLO, "max_tokens": 8, "temperature": 1.5, "seed": 3, "n": 3}
    texts = [choice["message"]["content"] for choice in server.post(CHAT, body).json()["choices"]]
    assert len(set(texts)) == 3
    alone = [server.post(CHAT, body | {"n": 1, "seed": 3 + i}).json()["choices"][0]["message"] for i in range(3)]
    assert [message["content"] for message in alone] == texts


def test_several_replies_read_their_prompt_once(server: Any) -> None:
    stats = server.served.engine._scheduler.session.stats
    prompt = server.served.model.tokenize("A goat and five hens went to the sea. " * 12)
    for path, extra in ((CHAT, {"messages": [{"role": "user", "content": "Two cows and a dog. " * 20}]}),
                        ("/v1/completions", {"prompt": prompt})):  # fmt: skip
        before = stats.rows
        answer = server.post(path, {**extra, "max_tokens": 4, "n": 5, "ignore_eos": True}).json()
        n_prompt = answer["usage"]["prompt_tokens"]
        assert n_prompt > 3 * PAGE_SIZE
        assert len(answer["choices"]) == 5
        assert stats.rows - before <= n_prompt + 5 * (PAGE_SIZE + 4)


def test_a_schema_is_kept(server: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["n"], "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    answer = server.post(CHAT, {"messages": HELLO, "max_tokens": 60, "response_format": form}).json()
    assert 1 <= json.loads(answer["choices"][0]["message"]["content"])["n"] <= 9


def test_stops_end_a_text_and_are_not_part_of_it(server: Any) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
    text = server.post("/v1/completions", body).json()["choices"][0]["text"]
    stop = text[5:8]
    choice = server.post("/v1/completions", body | {"stop": [stop]}).json()["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_options_of_samplers_are_fields(server: Any) -> None:
    biased = server.served.model.tokenize("hen", add_special=False)[0]
    body = {"prompt": "Once", "max_tokens": 3, "logit_bias": {str(biased): 100}, "min_p": 0.1, "logprobs": 0}
    told = server.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    assert told["tokens"] == [server.served.model.tokenizer.token_text(biased)] * 3


def test_log_likelihoods_as_lm_eval_asks_for_them(server: Any) -> None:
    model = server.served.model
    ids = model.tokenize("Once upon a time there was a hen.")
    body = {"prompt": [ids, ids[:5]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    answer = server.post("/v1/completions", body | {"model": "tiny"}).json()
    own = log_softmax(model.logits(ids))
    told = answer["choices"][0]["logprobs"]
    assert told["token_logprobs"][0] is None
    assert len(told["tokens"]) == len(ids) + 1
    expected = [own[i, token] for i, token in enumerate(ids[1:])]
    assert told["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-4)
    assert told["token_logprobs"][-1] == max(told["top_logprobs"][-1].values())
    assert len(answer["choices"][1]["logprobs"]["tokens"]) == 6


def test_completions_stream_with_their_echo(server: Any) -> None:
    body = {"prompt": ["Once", "Two hens"], "max_tokens": 5, "temperature": 0, "echo": True, "logprobs": 0}
    whole = server.post("/v1/completions", body).json()
    chunks = events(server.post("/v1/completions", body | {"stream": True}).text)
    for choice in whole["choices"]:
        parts = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [token for part in parts for token in part["logprobs"]["tokens"]] == choice["logprobs"]["tokens"]


def test_models_tokens_and_state(server: Any) -> None:
    client = server.client
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny", "other"]
    assert client.get("/v1/models/other").json()["id"] == "other"
    tokens = server.post("/tokenize", {"content": "a hen"}).json()["tokens"]
    assert tokens == server.served.model.tokenize("a hen")
    assert server.post("/detokenize", {"tokens": tokens}).json()["content"].strip() == "a hen"
    rendered = server.post("/tokenize", {"messages": HELLO, "with_pieces": True}).json()
    applied = server.post("/apply-template", {"messages": HELLO}).json()
    assert applied == {name: rendered[name] for name in ("prompt", "tokens")}
    assert applied["prompt"]
    assert "<|im_start|>user" in rendered["prompt"]
    assert len(rendered["pieces"]) == rendered["n_tokens"]
    assert client.get("/health").json() == {"status": "ok"}
    assert "sis_generated_tokens_total" in client.get("/metrics").text
    assert {"temperature", "top_k"} <= {option["name"] for option in client.get("/props").json()["sampler_options"]}
    assert client.get("/slots").json() == []


def test_what_the_source_of_a_model_has_set_is_kept(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sis generate` and `sis chat` do: its system message and options, unless a request brings its own."""
    body = {"messages": HELLO, "max_tokens": 8, "seed": 3}
    system = {"role": "system", "content": "Be brief."}
    asked = body | {"messages": [system, *HELLO], "temperature": 0}
    expected = server.post(CHAT, asked).json()
    monkeypatch.setattr(server.served.model, "preset", Preset(system["content"], {"temperature": 0.0}))
    assert server.post(CHAT, body).json()["choices"] == expected["choices"]
    own = server.post(CHAT, body | {"messages": [{"role": "system", "content": "No."}, *HELLO]}).json()
    assert own["usage"]["prompt_tokens"] < expected["usage"]["prompt_tokens"]


def test_a_sampler_may_be_named(server: Any) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 6, "temperature": None, "seed": 1}
    greedy = server.post("/v1/completions", body | {"sampler": "greedy"}).json()["choices"]
    assert greedy == server.post("/v1/completions", body | {"temperature": 0}).json()["choices"]
    chosen = {"sampler": "mirostat", "mirostat_tau": 3.0}
    assert server.post("/v1/completions", body | chosen).status_code == 200
    for wrong in ({"mirostat_tau": 3.0}, {"sampler": "none-such"}, {"sampler": 3}):
        assert server.post("/v1/completions", body | wrong).status_code == 400


def test_what_clients_send_by_default_goes_with_a_sampler_that_is_named(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"messages": HELLO, "max_tokens": 8, "seed": 1}
    greedy = server.post(CHAT, body | {"temperature": 0}).json()["choices"]
    monkeypatch.setattr(server.served.model, "preset", Preset(options={"temperature": 0.7, "top_p": 0.9}))
    usual: tuple[dict[str, Any], ...] = (
        {}, {"temperature": 0}, {"temperature": 0.0, "top_p": 1}, {"temperature": 1, "top_p": 1.0, "min_p": 0},
        {"presence_penalty": 0, "frequency_penalty": 0, "temperature": 1},
    )  # fmt: skip
    for sent in usual:
        answer = server.post(CHAT, body | {"sampler": "greedy"} | sent)
        assert (answer.status_code, answer.json().get("choices")) == (200, greedy), sent
    assert server.post(CHAT, body | {"sampler": "mirostat", "temperature": 1, "top_p": 1}).status_code == 200
    for sampler, name, value in (("greedy", "temperature", 0.7), ("greedy", "top_p", 0.9), ("mirostat", "top_p", 0.5),
                                 ("greedy", "temperature", True), ("greedy", "top_k", 40)):  # fmt: skip
        refused = server.post(CHAT, body | {"sampler": sampler, name: value})
        assert refused.status_code == 400, (name, value)
        error = refused.json()["error"]
        assert error["param"] == name
        assert error["message"] == f"{name} {value} contradicts the sampler {sampler}: leave one of them out"
