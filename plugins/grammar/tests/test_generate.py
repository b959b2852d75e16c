"""Whole texts of the built-in model, from Python and from the program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import real_models
from pydantic import BaseModel, Field
from sis_grammar.sampler import Grammar

import sis_core
from sis_core.arrays import F32
from sis_core.errors import ChatError, SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState
from sis_core.texts.chain_text import make_chain

Model = sis_core.LanguageModel


class Keeper(BaseModel, extra="forbid"):
    """A keeper of hens."""

    name: str = Field(max_length=20)
    hens: int = Field(ge=0, le=99)
    married: bool | None = None


class Person(BaseModel, extra="forbid"):
    """Somebody with an address."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    email_address: str = Field(max_length=30)
    postal_code: str = Field(pattern="^[0-9]{5}$")
    city: str = Field(max_length=16)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with sis_core.load("tiny", n_ctx=256, speculate="off") as loaded:
        yield loaded


@pytest.mark.parametrize("options", [{}, {"sampler": "greedy"}, {"temperature": 3.0}, {"repeat_penalty": 1.3}])
def test_a_model_of_pydantic(options: dict[str, object], model: Model) -> None:
    for seed in range(2):
        text = "".join(
            model.generate("The keeper: ", schema=Keeper, compact_json=True, seed=seed, max_tokens=200, **options)
        )
        Keeper.model_validate_json(text)


def test_a_chat_answers_in_compact_json(model: Model) -> None:
    asked = [{"role": "user", "content": "Who keeps the lighthouse?"}]
    answer = model.chat(asked, schema=Keeper, compact_json=True, seed=1, max_tokens=200).message["content"]
    Keeper.model_validate_json(answer)
    assert answer == json.dumps(json.loads(answer), separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(ChatError, match="changes nothing without a schema"):
        model.chat(asked, compact_json=True)


def test_a_batch_with_a_grammar_each_text_alone(model: Model) -> None:
    prompts = ["Once", "The keeper of the lighthouse"]
    options = {"regex": "[A-Z][a-z]{2,8} (and|or) [a-z]{2,8}[.]", "seed": 4, "max_tokens": 60}
    alone = ["".join(model.generate(prompt, **options)) for prompt in prompts]
    done = model.generate_batch(prompts, **options)
    assert [one.text for one in done] == alone
    assert {one.finish_reason for one in done} == {"end"}


class Silent(Sampler):
    """A grammar that does not say what it forces."""

    name = "silent"
    order = Grammar.order

    def __init__(self, grammar: Sampler) -> None:
        self.grammar = grammar

    def start(self, context: SamplerContext) -> SamplerState:
        return SilentState(self.grammar.start(context))


class SilentState(SamplerState):
    def __init__(self, state: SamplerState) -> None:
        self.apply, self.accept = state.apply, state.accept  # type: ignore[method-assign]

    def apply(self, logits: F32) -> None: ...


@pytest.mark.parametrize("logprobs", [None, 2])
def test_forced_tokens_save_steps_and_change_nothing(logprobs: int | None, model: Model) -> None:
    """Compact JSON takes at least a fifth fewer steps."""
    chain = make_chain(model.registry, options={"schema": Keeper, "compact_json": True})
    silent = [Silent(sampler) if isinstance(sampler, Grammar) else sampler for sampler in chain]
    texts, steps = [], []
    for samplers in (silent, chain):
        with model.scheduler(max_tokens=1024) as scheduler:
            for seed in range(3):
                options = {"samplers": samplers, "seed": seed, "max_tokens": 200, "logprobs": logprobs}
                scheduler.add(model.request("The keeper: ", **options))
            pieces = sorted(scheduler.run(), key=lambda piece: piece.sequence)
            texts.append([(str(p), p.token, p.logprob, p.top, p.finish_reason, p.sequence) for p in pieces])
            steps.append(scheduler.session.stats.steps)
    assert texts[0] == texts[1]
    assert steps[1] <= 0.8 * steps[0]


@pytest.mark.full
def test_forced_tokens_on_a_real_model() -> None:
    """SmolLM2 in three quarters of the steps at most."""
    with sis_core.load(real_models.real(real_models.SMOLLM2), n_ctx=512, speculate="off") as smollm:
        chain = make_chain(smollm.registry, options={"schema": Person, "compact_json": True, "temperature": 0.7})
        silent = [Silent(sampler) if isinstance(sampler, Grammar) else sampler for sampler in chain]
        prompt = "<|im_start|>user\nInvent a person, as JSON.<|im_end|>\n<|im_start|>assistant\n"
        texts, steps = [], []
        for samplers in (silent, chain):
            with smollm.scheduler(max_tokens=512, reuse=False) as scheduler:
                for seed in range(3):
                    scheduler.add(
                        smollm.request(prompt, samplers=samplers, seed=seed, max_tokens=200, parse_special=True)
                    )
                    texts.append([(str(piece), piece.token, piece.finish_reason) for piece in scheduler.run()])
                steps.append(scheduler.session.stats.steps)
    assert texts[:3] == texts[3:]
    assert steps[1] <= 0.75 * steps[0]


def test_going_on_after_the_end_gives_nothing_more(model: Model) -> None:
    (done,) = model.generate_batch(["Once"], regex="hens", ignore_end=True, max_tokens=12)
    assert done.text == "hens"
    assert done.finish_reason == "length"


def test_a_bias_against_the_only_token_is_an_error(model: Model) -> None:
    (end,) = model.tokenizer.end_tokens
    with pytest.raises(SamplerError, match="sampler grammar: every token is forbidden"):
        list(model.generate("Once", regex="hens", logit_bias={end: -float("inf")}))


def sis(*args: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sis_core",
        "generate",
        "--no-echo",
        "--seed",
        "1",
        *map(str, args),
        "The keeper: ",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_program(tmp_path: Path) -> None:
    schema, file = Keeper.model_json_schema(), tmp_path / "keeper.json"
    file.write_text(json.dumps(schema), "utf-8")
    done = sis("--schema", file, "--compact-json")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), schema)


def test_a_chain_in_a_line(tmp_path: Path, model: Model) -> None:
    file = tmp_path / "keeper.json"
    file.write_text(json.dumps(Keeper.model_json_schema()), "utf-8")
    chain = f"grammar:schema={file},compact_json=yes;temperature=2"
    Keeper.model_validate_json("".join(model.generate("The keeper: ", samplers=chain, seed=1)))


def test_the_program_refuses_by_name() -> None:
    done = sis("--schema", '{"uniqueItems": true}')
    assert done.returncode == 1
    assert "sampler grammar: schema cannot be enforced: uniqueItems at #" in done.stderr
