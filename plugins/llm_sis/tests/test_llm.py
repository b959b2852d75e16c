"""The plugin in the real `llm`: models, options, schemas, tools, conversations, async and embeddings."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
import numpy as np
import pytest
from click.testing import CliRunner
from llm.cli import cli
from llm_sis import plugin
from llm_sis.house import House
from llm_sis.models import AsyncSisModel, SisModel

from sis_core import load
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel

PLUGINS = Path(__file__).parents[2]
SCRIPTED = PLUGINS / "server" / "tests" / "scripts.py"
CALLING = str(PLUGINS / "chat" / "tests" / "templates" / "tagged_json.jinja")
CALLS, THINKS, CALLS_TWICE = 1, 2, 3
HELLO = "Tell me a tale of a hen."


@pytest.fixture(autouse=True)
def of_llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`llm`'s own folder."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("SIS_MODEL", raising=False)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    plugin.house.close()


@pytest.fixture(scope="module")
def reference() -> Iterator[LanguageModel]:
    with load() as model:
        yield model


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One whose model says what tests tell it to."""
    made = House(Registry.load(files=[SCRIPTED]))
    yield made
    made.close()


@pytest.fixture
def model(house: House) -> SisModel:
    return SisModel("sis", house, house.resident(None))


def look(where: str, times: int) -> str:
    """Looks somewhere."""
    return f"{times} times in {where}: two hens"


class TestNames:
    def test_what_is_here_has_a_name(self) -> None:
        assert {"sis", "sis/tiny"} <= {model.model_id for model in llm.get_models()}
        assert "sis" in {model.model_id for model in llm.get_async_models()}
        assert isinstance(llm.get_model("sis"), SisModel)

    def test_a_name_can_be_added_and_removed(self, reference: LanguageModel, tmp_path: Path) -> None:
        file = tmp_path / "house.gguf"
        shutil.copyfile(reference.path, file)
        assert CliRunner().invoke(cli, ["sis", "add", "house", str(file)]).exit_code == 0
        assert CliRunner().invoke(cli, ["sis", "list"]).output == f"sis/house\t{file}\n"
        assert llm.get_model("sis/house").prompt(HELLO, max_tokens=2).text()
        assert CliRunner().invoke(cli, ["sis", "remove", "house"]).exit_code == 0
        with pytest.raises(llm.UnknownModelError):
            llm.get_model("sis/house")
        assert "no model was added" in CliRunner().invoke(cli, ["sis", "remove", "house"]).output

    def test_a_damaged_list_is_named(self, of_llm: Path) -> None:
        (of_llm / "sis-models.json").write_text("{")
        done = CliRunner().invoke(cli, ["sis", "list"])
        assert "sis-models.json" in str(done.exception)
        assert isinstance(llm.get_model("sis"), SisModel)


class TestPrompts:
    def test_a_reply_is_what_the_model_says(self, reference: LanguageModel) -> None:
        response = llm.get_model("sis").prompt(HELLO, max_tokens=12, temperature=0.0, seed=1)
        said = reference.chat([{"role": "user", "content": HELLO}], max_tokens=12, temperature=0.0, seed=1)
        assert response.text() == said.message["content"]
        assert said.usage is not None
        assert (response.input_tokens, response.output_tokens) == (said.usage.n_prompt, 12)

    def test_the_command_line(self) -> None:
        options = ["-o", "max_tokens", "8", "-o", "temperature", "0", "--no-stream"]
        done = CliRunner().invoke(cli, ["-m", "sis", HELLO, *options])
        assert done.exit_code == 0, done.output
        assert done.output.strip() == llm.get_model("sis").prompt(HELLO, max_tokens=8, temperature=0.0).text().strip()
        listed = CliRunner().invoke(cli, ["models", "--options", "-m", "sis"])
        assert all(option in listed.output for option in ("top_k: int", "min_p: float", "seed: int"))

    def test_options_that_are_wrong_are_refused(self) -> None:
        model = llm.get_model("sis")
        with pytest.raises(ValueError, match="temprature"):
            model.prompt(HELLO, temprature=1)
        with pytest.raises(llm.ModelError, match="top_p"):
            model.prompt(HELLO, top_p=7.0).text()

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "bad.gguf").write_bytes(b"nothing")
        CliRunner().invoke(cli, ["sis", "add", "bad", str(tmp_path / "bad.gguf")])
        with pytest.raises(llm.ModelError, match=r"bad\.gguf"):
            llm.get_model("sis/bad").prompt(HELLO).text()

    def test_a_schema_is_kept(self, model: SisModel) -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
                  "required": ["n"], "additionalProperties": False}  # fmt: skip
        response = model.prompt(HELLO, schema=schema, max_tokens=200)
        assert 1 <= json.loads(response.text())["n"] <= 9

    def test_a_system_prompt_is_read(self, model: SisModel, reference: LanguageModel) -> None:
        response = model.prompt(HELLO, system="Be brief.", max_tokens=1, template="chatml")
        response.text()
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO}]
        assert response.input_tokens == len(reference.chat_format("chatml").render(messages).tokens)


class TestConversations:
    def test_each_turn_reads_only_what_is_new(self, model: SisModel) -> None:
        conversation = model.conversation()
        options: dict[str, Any] = {"max_tokens": 8, "template": "chatml"}
        first = conversation.prompt(HELLO, **options)
        first.text()
        second = conversation.prompt("And a goat?", **options)
        second.text()
        assert first.input_tokens is not None
        assert second.token_details == {"cached": first.input_tokens + 7}  # the eighth was never read

    def test_two_at_once(self, model: SisModel) -> None:
        """A reply that nobody reads to its end does not stop another."""
        begun = iter(model.prompt(HELLO, max_tokens=20))
        next(begun)
        assert model.prompt("A goat", max_tokens=3).text()
        assert "".join(begun)


class TestTools:
    def test_a_call_is_run_and_its_result_is_read(self, model: SisModel) -> None:
        conversation = model.conversation()
        first = conversation.prompt(HELLO, tools=[look], template=CALLING, script=CALLS)
        assert first.text().strip() == "I shall look."
        (call,) = first.tool_calls()
        assert (call.name, call.arguments) == ("look", {"where": "the coop", "times": 2})
        results = first.execute_tool_calls()
        assert results[0].output == "2 times in the coop: two hens"
        second = conversation.prompt(tools=[look], tool_results=results, template=CALLING, script=THINKS)
        kinds = [event.type for event in second.stream_events()]
        assert kinds[0] == "reasoning"
        assert second.text() == "There are two hens."

    def test_what_was_called_is_rendered_as_the_template_does(self, model: SisModel, reference: LanguageModel) -> None:
        first = model.conversation().prompt(HELLO, tools=[look], template=CALLING, script=CALLS)
        first.text()
        (call,) = first.tool_calls()
        results = first.execute_tool_calls()
        second = first.conversation.prompt(tools=[look], tool_results=results, template=CALLING, max_tokens=1)
        second.text()
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": HELLO},
            {"role": "assistant", "content": first.text(), "tool_calls": [
                {"id": call.tool_call_id, "type": "function",
                 "function": {"name": "look", "arguments": json.dumps(call.arguments)}}]},
            {"role": "tool", "tool_call_id": call.tool_call_id, "name": "look", "content": results[0].output},
        ]  # fmt: skip
        tool = llm.Tool.function(look)
        function = {"name": "look", "description": tool.description, "parameters": tool.input_schema}
        rendered = reference.chat_format(CALLING).render(messages, [{"type": "function", "function": function}])
        assert second.input_tokens == len(rendered.tokens)

    def test_several_calls(self, model: SisModel) -> None:
        response = model.prompt(HELLO, tools=[look], template=CALLING, script=CALLS_TWICE)
        response.text()
        assert len({call.tool_call_id for call in response.tool_calls()}) == 2


def test_async_says_the_same(house: House, model: SisModel) -> None:
    options: dict[str, Any] = {"max_tokens": 10, "temperature": 0.9, "seed": 3}
    asked = AsyncSisModel("sis", house, house.resident(None))

    async def both() -> list[str]:
        one, other = asked.prompt(HELLO, **options), asked.prompt("A goat", **options)
        return list(await asyncio.gather(one.text(), other.text()))

    assert asyncio.run(both()) == [model.prompt(text, **options).text() for text in (HELLO, "A goat")]


def test_embeddings_are_the_models(reference: LanguageModel) -> None:
    texts = ["Two hens.", "A goat went home."]
    model = llm.get_embedding_model("sis")
    np.testing.assert_allclose(list(model.embed_multi(texts)), reference.embed(texts), atol=1e-3)
    with pytest.raises(ValueError, match="binary"):
        model.embed(b"bytes")
