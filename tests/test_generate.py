"""Generation around the arithmetic: batches, seeds, stops, limits, shifting. Most run on the stub backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
import sis_samplers
import sis_tokenizers
from scripted import Says
from tiny_models import BOS, EOS, metadata, tensors, write_model

import sis_core
from sis_core.errors import ContextError, SamplerError, SisError
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Piece
from sis_core.texts.running import shifted

PARTS = (sis_llama, sis_samplers, sis_tokenizers)
PROMPTS = ["Once", "The cat sat on the", "x", "A longer prompt than the others, by far."]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.of(*PARTS)


@pytest.fixture(scope="module")
def stub(random_model: Path, registry: Registry) -> Iterator[LanguageModel]:
    with load(random_model, backend="stub", registry=registry) as model:
        yield model


@pytest.fixture(scope="module")
def real(random_model: Path, registry: Registry) -> Iterator[LanguageModel]:
    with load(random_model, backend="numpy", kv_type="f32", registry=registry) as model:
        yield model


def text(pieces: Iterator[Piece]) -> str:
    return "".join(pieces)


def test_pieces_are_text_with_facts(stub: LanguageModel) -> None:
    pieces = list(stub.generate("Once", seed=3, max_tokens=20, logprobs=2))
    assert len(pieces) == 20
    assert [p.finish_reason for p in pieces] == [None] * 19 + ["length"]
    assert all(p.token is not None and p.logprob is not None and p.logprob <= 0 and len(p.top) == 2 for p in pieces)
    assert all(p.top[0].logprob >= p.top[1].logprob for p in pieces)
    assert stub.detokenize([p.token for p in pieces if p.token is not None]) == "".join(pieces)


def test_same_seed_same_text_alone_or_in_a_batch(stub: LanguageModel) -> None:
    options = {"sampler": "top-p", "temperature": 1.5, "max_tokens": 40}
    alone = [text(stub.generate(prompt, seed=11, **options)) for prompt in PROMPTS]
    assert [text(stub.generate(prompt, seed=11, **options)) for prompt in PROMPTS] == alone
    assert [done.text for done in stub.generate_batch(PROMPTS, seed=11, **options)] == alone
    assert [done.text for done in stub.generate_batch(PROMPTS[::-1], seed=11, **options)] == alone[::-1]
    assert text(stub.generate(PROMPTS[0], seed=12, **options)) != alone[0]


def test_without_a_seed_texts_differ(stub: LanguageModel) -> None:
    assert len({text(stub.generate("Once", temperature=2.0, max_tokens=30)) for _ in range(4)}) > 1


def test_a_batch_is_one_step_for_all(stub: LanguageModel) -> None:
    requests = [stub.request(prompt, max_tokens=25, seed=1, ignore_end=True) for prompt in PROMPTS]
    with stub.scheduler(max_tokens=1024) as scheduler:
        for request in requests:
            scheduler.add(request)
        assert len(list(scheduler.run())) == 25 * len(requests)
        stats = scheduler.session.stats
        assert stats.steps == 25
        assert stats.rows == sum(len(r.prompt) for r in requests) + 24 * len(requests)


def test_real_batches_equal_real_singles(real: LanguageModel) -> None:
    alone = [text(real.generate(prompt, sampler="greedy", max_tokens=16)) for prompt in PROMPTS]
    assert [done.text for done in real.generate_batch(PROMPTS, sampler="greedy", max_tokens=16)] == alone


def test_stop_strings_end_a_text_and_are_not_part_of_it(stub: LanguageModel) -> None:
    whole = text(stub.generate("Once", seed=5, max_tokens=60))
    stop = whole[20:23]
    pieces = list(stub.generate("Once", seed=5, max_tokens=60, stop=[stop, whole[30:34]]))
    assert "".join(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"
    assert [piece.stop for piece in pieces] == [None] * (len(pieces) - 1) + [stop]


@pytest.mark.parametrize("spelt", [False, True], ids=["silent", "spelt"])
def test_a_stop_may_name_a_control_token(stub: LanguageModel, spelt: bool) -> None:
    a, b, c = (stub.tokenize(letter, add_special=False)[0] for letter in "abc")
    says: dict[str, Any] = {"sampler": Says((a, b, BOS, c)), "spell_special": spelt, "stop": ["bx", "<s>"]}
    pieces = list(stub.generate("Once", **says))
    assert ("".join(pieces), pieces[-1].finish_reason, pieces[-1].stop) == ("ab", "stop", "<s>")
    assert [piece.token for piece in pieces] == [a, b, BOS]
    says["stop"] = ["</s>"]  # also where the model's own end is passed over
    done = stub.generate_batch(["Once"], ignore_end=True, **says)[0]
    assert (done.tokens, done.finish_reason) == ((a, b, BOS, c, EOS), "stop")


def test_the_end_token_ends_a_text(stub: LanguageModel) -> None:
    always_end = {"sampler": "greedy", "logit_bias": {EOS: 1000.0}}
    done = stub.generate_batch(["Once"], **always_end)[0]
    assert (done.text, done.finish_reason, done.tokens) == ("", "end", (EOS,))
    assert len(list(stub.generate("Once", max_tokens=9, ignore_end=True, **always_end))) == 9


def test_a_prompt_longer_than_the_context_names_both_numbers(stub: LanguageModel) -> None:
    with pytest.raises(ContextError, match=r"prompt: a text of 201 tokens does not fit into the context of 128"):
        list(stub.generate("a" * 200))


def test_a_full_context_ends_the_text(stub: LanguageModel) -> None:
    pieces = list(stub.generate("a" * 100, max_tokens=None, seed=1, ignore_end=True))
    assert pieces[-1].finish_reason == "context"
    assert len(pieces) == 128 - 101 + 1


def test_shifting_goes_on_past_the_context(stub: LanguageModel, real: LanguageModel) -> None:
    done = stub.generate_batch(["a" * 200], max_tokens=300, seed=1, ignore_end=True, context="shift")[0]
    assert (len(done.tokens), done.finish_reason) == (300, "length")
    tokens = real.tokenize("The cat sat on the mat. " * 10)
    greedy = real.generate_batch([tokens], sampler="greedy", max_tokens=4, context="shift", ignore_end=True)[0]
    kept = shifted(tokens, 128, 4)
    assert kept[:4] == tokens[:4]
    assert kept[4:] == tokens[-60:]
    fresh = real.generate_batch([kept], sampler="greedy", max_tokens=4, ignore_end=True)[0]
    assert greedy.tokens == fresh.tokens


def test_an_empty_prompt_needs_a_first_token(tmp_path: Path, registry: Registry, stub: LanguageModel) -> None:
    assert stub.tokenize("") == [BOS]
    path = write_model(tmp_path / "bare.gguf", metadata(tokenizer__ggml__add_bos_token=False))
    with load(path, registry=registry) as model, pytest.raises(ContextError, match="the prompt has no tokens"):
        list(model.generate(""))


def test_options_are_checked(stub: LanguageModel) -> None:
    with pytest.raises(SamplerError, match="temperature"):
        stub.request("x", temperature=-1.0)
    with pytest.raises(SamplerError, match="temprature"):
        stub.request("x", temprature=1.0)


def test_degraded_results_say_so(tmp_path: Path, registry: Registry) -> None:
    weights = tensors()
    del weights["blk.1.ffn_up.weight"]
    path = write_model(tmp_path / "holed.gguf", weights=weights)
    with load(path, registry=registry, on_error="degrade") as model:
        assert model.degraded == 1
        assert list(model.generate("Once", max_tokens=3))[-1].degraded


def test_logits_and_hidden_states(real: LanguageModel) -> None:
    assert real.logits("Once").shape == (len(real.tokenize("Once")), 260)
    assert real.hidden("Once").shape == (len(real.tokenize("Once")), 32)


def test_the_readme_example_in_python(random_model: Path) -> None:
    with sis_core.load(random_model) as model:
        assert "".join(model.generate("Once upon a time", sampler="top-p", seed=1, max_tokens=5))


def test_numbers_out_of_range_are_named(stub: LanguageModel) -> None:
    assert stub.generate_batch([]) == []
    for options in ({"max_tokens": 0}, {"max_tokens": -3}, {"logprobs": -1}, {"n_keep": -1}):
        with pytest.raises(SisError, match=f"{next(iter(options))}: is .* but must be at least"):
            stub.request("x", **options)
    assert text(stub.generate("x", seed=np.int64(5))) == text(stub.generate("x", seed=5))
    with pytest.raises(ContextError, match="129 tokens does not fit into the context of 128"):
        stub.logits([1] * 129)


def test_leaving_early_frees_the_session(stub: LanguageModel) -> None:
    stream = stub.generate("Once", max_tokens=50)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    clone = stub.with_backend("stub")
    clone.close()


def test_ids_are_clamped_before_anybody_sees_them(random_model: Path, registry: Registry) -> None:
    with load(random_model, registry=registry, backend="stub", on_error="degrade") as model:
        assert list(model.generate([256, 99999], max_tokens=2))[-1].degraded
        other = model.with_backend("numpy")
        assert other.on_error == "degrade"
        other.close()


def test_one_failing_prompt_of_a_batch_is_its_own(stub: LanguageModel) -> None:
    options = {"seed": 3, "max_tokens": 6, "ignore_end": True}
    fine, long, empty = stub.generate_batch(["Once", "a" * 200, []], **options)
    assert (fine.text, fine.error) == (text(stub.generate("Once", **options)), None)
    assert (long.text, long.finish_reason, type(long.error)) == ("", "error", ContextError)
    assert str(empty.error).startswith("prompt: the prompt has no tokens")


def test_nothing_is_kept_between_calls(stub: LanguageModel) -> None:
    for _ in range(2):
        assert [piece.n_cached for piece in stub.generate("The cat sat on the mat. " * 4, max_tokens=2)] == [0, 0]
