"""What each sampler does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
import sis_samplers
import sis_tokenizers
from sis_samplers.dry import DRY
from sis_samplers.greedy import Greedy
from sis_samplers.logit_bias import LogitBias
from sis_samplers.min_p import MinP
from sis_samplers.mirostat import Mirostat, MirostatV2
from sis_samplers.penalties import Penalties
from sis_samplers.temperature import Temperature
from sis_samplers.top_k import TopK
from sis_samplers.top_n_sigma import TopNSigma
from sis_samplers.top_p import TopP
from sis_samplers.typical import Typical
from sis_samplers.xtc import XTC

from sis_core.arrays import F32
from sis_core.errors import SamplerError
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerContext, draw, log_softmax
from sis_core.testing import check_sampler
from sis_core.texts.chain import Chain
from sis_core.texts.language_model import LanguageModel, load

REGISTRY = Registry.of(sis_samplers)


def logits(*values: float) -> F32:
    return np.array(values, np.float32)


def applied(sampler: Sampler, values: F32, *, prompt: tuple[int, ...] = (), seed: int = 0) -> F32:
    result = values.copy()
    sampler.start(SamplerContext(len(values), prompt, None, seed)).apply(result)
    return result


def kept(sampler: Sampler, values: F32, **context: Any) -> list[int]:
    found: list[int] = np.flatnonzero(applied(sampler, values, **context) > -np.inf).tolist()
    return found


def normal(n: int, scale: float = 3, seed: int = 1) -> F32:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n).astype(np.float32) * np.float32(scale)


# The contract, for each sampler ---------------------------------------------------------------------------------------

EFFECTIVE: dict[str, dict[str, Any]] = {  # those whose defaults change nothing
    "penalties": {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1},
    "logit-bias": {"logit_bias": {0: 1.5}},
    "xtc": {"chance": True},
}


@pytest.mark.parametrize("name", REGISTRY.names("samplers"))
def test_keeps_the_contract(name: str) -> None:
    check_sampler(REGISTRY.get("samplers", name), **EFFECTIVE.get(name, {}))


def test_every_sampler_is_in_the_readme() -> None:
    text = (Path(__file__).parent.parent / "plugins/samplers/README.md").read_text("utf-8")
    for name in REGISTRY.names("samplers"):
        assert f"`{name}`" in text


# Each sampler ---------------------------------------------------------------------------------------------------------


def test_ties_go_to_the_lowest_id() -> None:
    same = logits(1, 2, 2, 2, 0)
    assert kept(Greedy(), same) == [1]
    assert kept(TopK(2), same) == [1, 2]
    assert kept(TopP(0.5), same) == [1, 2]
    assert kept(Temperature(0), same) == [1]
    assert kept(TopP(0.5), np.zeros(10, np.float32)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [3, 500, 4000, 30_000])
@pytest.mark.parametrize("scale", [0.01, 1, 8])
def test_truncation_against_a_full_sort(n: int, scale: float) -> None:
    """The short cuts of large vocabularies find what a full sort finds."""
    values = normal(n, scale)
    values[::7] = np.round(values[::7])  # ties
    values[1::11] = -np.inf
    p = np.exp(values.astype(np.float64) - float(values.max()))
    p /= p.sum()
    order = np.argsort(-values, kind="stable")
    ends = np.cumsum(p[order])
    for k in (1, 7, 100, 2000):
        assert kept(TopK(k), values) == sorted(i for i in order[:k].tolist() if values[i] > -np.inf)
    for wanted in (0.0, 0.1, 0.51, 0.9, 0.999):
        assert kept(TopP(wanted), values) == sorted(order[: int(np.searchsorted(ends, wanted)) + 1].tolist())
    alive = np.flatnonzero(p)
    surprise = -np.log(p[alive])
    distance = np.abs(surprise - (p[alive] * surprise).sum())
    order = np.argsort(distance, kind="stable")
    for wanted in (0.2, 0.9):
        n_kept = int(np.searchsorted(np.cumsum(p[alive][order]), wanted)) + 1
        found = kept(Typical(wanted), values)
        assert len(found) == pytest.approx(n_kept, abs=1)  # float32: a neighbour may change places with the last
        assert len(set(found) ^ set(alive[order[:n_kept]].tolist())) <= 2


def test_limits_that_keep_everything() -> None:
    values = normal(100)
    for sampler in (TopK(0), TopK(100), TopK(10**9), TopP(1), MinP(0), Typical(1), Penalties(), LogitBias({})):
        np.testing.assert_array_equal(applied(sampler, values, prompt=(1, 2, 3)), values)


def test_temperature() -> None:
    values = normal(100)
    np.testing.assert_allclose(applied(Temperature(0.5), values), values * 2)
    assert kept(Temperature(0), values) == [int(values.argmax())]
    for t in (1e-30, 2e-38, 1e-39, 1e-300):
        result = applied(Temperature(t), values)
        assert result.max() < np.inf
        assert draw(result, 0, 0) == values.argmax()
    assert np.ptp(applied(Temperature(1000), values)) < 0.1


def test_min_p_keeps_the_likeliest_at_one() -> None:
    assert kept(MinP(1), logits(3, 1, 3)) == [0, 2]
    assert kept(MinP(0.5), logits(0, math.log(0.51), math.log(0.49))) == [0, 1]


def test_top_n_sigma_does_not_depend_on_temperature() -> None:
    values = normal(1000)
    assert kept(TopNSigma(1.5), values) == kept(TopNSigma(1.5), values * np.float32(3))


def test_penalties_count_prompt_and_text_in_their_window() -> None:
    state = Penalties(2, 0.5, 0.25, repeat_last_n=3).start(SamplerContext(6, [5, 0, 1, 1]))

    def now() -> list[float]:
        values = logits(4, 4, -4, 4, 4, 4)
        state.apply(values)
        return [float(v) for v in values]

    assert now() == [4 / 2 - 0.75, 4 / 2 - 1.25, -4, 4, 4, 4]
    state.accept(2)
    assert now() == [4, 4 / 2 - 1.25, -4 * 2 - 0.75, 4, 4, 4]
    for token in (3, 3, 3, 3):
        state.accept(token)
    assert now() == [4, 4, -4, 4 / 2 - 1.75, 4, 4]


def test_penalties_of_all_and_of_nothing() -> None:
    values = np.ones(10, np.float32)
    assert applied(Penalties(2, repeat_last_n=-1), values, prompt=tuple(range(10)) * 20).tolist() == [0.5] * 10
    nothing = Penalties(2, repeat_last_n=0).start(SamplerContext(10, [1, 2]))
    nothing.accept(3)
    nothing.apply(values)
    assert values.tolist() == [1] * 10


@pytest.mark.parametrize(
    "given",
    [
        {3: 1.5, 1: -math.inf},
        {"3": 1.5, "1": "-inf"},
        "3=+1.5,1=-inf",
        " 1 = -inf , 3 = 1.5 ",
        ["3=1.5", "1=-inf"],
        [(3, 1.5), (1, -math.inf)],
        ("3=1.5,1=-inf",),
    ],
)
def test_logit_bias_is_read_from_maps_and_text(given: Any) -> None:
    assert LogitBias(given).logit_bias == ((1, -math.inf), (3, 1.5))
    assert applied(LogitBias(given), logits(1, 1, 1, 1)).tolist() == [1, -math.inf, 1, 2.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("3", "'3' does not begin with TOKEN=NUMBER. Write 15043="),
        ("3=1;4=2", "does not begin with TOKEN=NUMBER"),
        ('"a=1', "does not begin with TOKEN=NUMBER"),
        ("x=y", "the bias of 'x' is 'y', not a number"),
        ("3=nan", "the bias of 3 is nan, but must be finite or -inf"),
        ({3: math.inf}, "but must be finite or -inf"),
        ({-3: 1.0}, "-3 is neither a token id, 0 or more, nor a text"),
        ("-3=1", "-3 is neither a token id"),
        ({"": 1.0}, "'' is neither a token id"),
        ({3.5: 1.0}, "3.5 is neither a token id"),
        ({True: 1.0}, "True is neither a token id"),
        (r'"\q"=1', "is no text in quotes"),
        ("3=1,3=2", "token 3 is given twice"),
        ('x=1,"x"=2', "token 'x' is given twice"),
        (5, "5 is not a map"),
        ([5], "5 is not a pair"),
    ],
)
def test_logit_bias_refuses(given: Any, message: str) -> None:
    with pytest.raises(SamplerError, match=f"sampler logit-bias: .*{message}"):
        LogitBias(given)


def test_logit_bias_names_tokens_by_text(random_model: Path) -> None:
    given = LogitBias('b=1,"a"=2,"5"=3," ,=\\n"=4, 7=-inf,<s>=5')
    assert given.logit_bias == ((7, -math.inf), (" ,=\n", 4), ("5", 3), ("<s>", 5), ("a", 2), ("b", 1))
    registry = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
    with load(random_model, backend="stub", registry=registry) as model:
        context = SamplerContext(model.config.n_vocab, tokenizer=model.tokenizer)
        found = np.zeros(context.n_vocab, np.float32)
        LogitBias('b=1,"5"=3,<s>=5').start(context).apply(found)
        assert {i: found[i] for i in found.nonzero()[0]} == {
            model.tokenize(text, add_special=False, parse_special=True)[0]: value
            for text, value in (("b", 1), ("5", 3), ("<s>", 5))
        }
        with pytest.raises(SamplerError, match=r"'ab' is not one token but 2: .*'a', .*'b'. Name the ids"):
            LogitBias("ab=1").start(context)
        with pytest.raises(SamplerError, match="is given twice, the second time as 'b'"):
            LogitBias({model.tokenize("b", add_special=False)[0]: 1, "b": 1}).start(context)
    with pytest.raises(SamplerError, match="there is no vocabulary to find 'b' in"):
        LogitBias("b=1").start(SamplerContext(50))


def test_logit_bias_outside_the_vocabulary() -> None:
    with pytest.raises(SamplerError, match="token 50 is outside the vocabulary of 50"):
        LogitBias({50: 1}).start(SamplerContext(50))


class Letters:
    """A tokenizer with a letter for each token, and a newline for token 9."""

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        return b"x\n" if token == 9 else bytes([97 + token])


def dry_losses(text: list[int], **options: Any) -> dict[int, float]:
    context = SamplerContext(10, text, Letters(), 0)  # type: ignore[arg-type]
    values = np.zeros(10, np.float32)
    DRY(1, 2, 2, **options).start(context).apply(values)
    return {i: -float(v) for i, v in enumerate(values) if v}


def test_dry() -> None:
    assert dry_losses([1, 2, 3, 4, 1]) == {}  # one token is not yet a repetition
    assert dry_losses([1, 2, 3, 4, 1, 2]) == {3: 1}
    assert dry_losses([1, 2, 3, 4, 1, 2, 3]) == {4: 2}
    assert dry_losses([0, 1, 2, 3, 5, 1, 2, 4, 0, 1, 2]) == {3: 2, 4: 1}
    assert dry_losses([1, 1, 1, 1]) == {1: 2}  # a match of three with itself, one place on
    assert dry_losses([]) == {}


def test_dry_does_not_cross_breakers() -> None:
    assert dry_losses([1, 9, 2, 3, 4, 1, 9, 2, 3]) == {4: 1}  # "bx\ncd": only "cd" counts
    assert dry_losses([1, 2, 9, 1, 2]) == {}  # what follows is a breaker
    assert dry_losses([1, 9, 3, 1, 9]) == {}
    assert dry_losses([1, 9, 2, 3, 4, 1, 9, 2, 3], dry_breakers="") == {4: 4}
    assert dry_losses([1, 9, 2, 3, 4, 1, 9, 2, 3], dry_breakers=["\n", "c"]) == {}


def test_dry_looks_back_as_far_as_it_may() -> None:
    text = [1, 2, 3, 4, 5, 1, 2, 3]
    assert dry_losses(text) == {4: 2}
    assert dry_losses(text, dry_last_n=7) == {4: 1}
    assert dry_losses(text, dry_last_n=5) == {}
    assert dry_losses(text, dry_last_n=0) == {}


def test_dry_step_by_step_is_dry_at_once() -> None:
    text = np.random.Generator(np.random.Philox(4)).integers(0, 4, 300).tolist()
    text[::17] = [9] * len(text[::17])
    sampler = DRY(dry_last_n=100)
    state = sampler.start(SamplerContext(10, text[:3], Letters()))  # type: ignore[arg-type]
    for n in range(3, len(text)):
        state.accept(text[n])
        one, other = np.zeros(10, np.float32), np.zeros(10, np.float32)
        state.apply(one)
        sampler.start(SamplerContext(10, text[: n + 1], Letters())).apply(other)  # type: ignore[arg-type]
        np.testing.assert_array_equal(one, other)


def test_dry_never_bans() -> None:
    state = DRY(1000, 100).start(SamplerContext(3, [1] * 500))
    values = np.zeros(3, np.float32)
    state.apply(values)
    assert np.isfinite(values).all()


def test_xtc_removes_all_but_the_least_likely_of_the_likely() -> None:
    values = np.log(logits(0.4, 0.05, 0.3, 0.15, 0.1))
    assert kept(XTC(1, 0.12), values) == [1, 3, 4]
    assert kept(XTC(1, 0.35), values) == [0, 1, 2, 3, 4]  # only one is likely
    assert kept(XTC(0, 0.12), values) == [0, 1, 2, 3, 4]
    assert kept(XTC(1, 0.5), logits(1, 1)) == [1] or kept(XTC(1, 0.5), logits(1, 1)) == [0]


@pytest.mark.parametrize("sampler", [Mirostat(3), MirostatV2(3)])
def test_mirostat_steers_to_its_target(sampler: Sampler) -> None:
    """Over a thousand steps of another distribution each, the mean surprise is near τ = 3 bits."""
    chain = Chain.start([sampler], SamplerContext(2000, (), None, 3))
    generator = np.random.Generator(np.random.Philox(8))
    zipf = -1.1 * np.log(np.arange(1, 2001))
    surprises = []
    for step in range(1000):
        values = (generator.permutation(zipf) * generator.uniform(0.8, 1.3)).astype(np.float32)
        filtered = values.copy()
        chain.copy().apply(filtered)
        token = chain.choose(values, step)
        chain.accept(token)
        surprises.append(-float(log_softmax(filtered)[token]) / math.log(2))
    assert np.mean(surprises[200:]) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("sampler", [Mirostat(), MirostatV2()])
def test_mirostat_survives_what_it_did_not_offer(sampler: Sampler) -> None:
    state = sampler.start(SamplerContext(100))
    state.accept(5)  # before any apply
    values = normal(100, 30)
    state.apply(values)
    for token in np.flatnonzero(values == -np.inf)[:3].tolist():
        state.accept(token)
    for _ in range(500):
        values = normal(100, 30)
        state.apply(values)
        state.accept(int(values.argmax()))
    assert np.isfinite(values.max())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopP(1.5), "sampler top-p: top_p is 1.5, but must be a number from 0 to 1"),
        (lambda: TopP(math.nan), "top_p is nan"),
        (lambda: Temperature(-0.1), "temperature is -0.1, but must be a number from 0 to 1000"),
        (lambda: Temperature(math.inf), "temperature is inf"),
        (lambda: Temperature("hot"), "temperature is 'hot'"),  # type: ignore[arg-type]
        (lambda: TopK(-1), "top_k is -1, but must be a whole number, 0 or more"),
        (lambda: TopK(2.5), "top_k is 2.5"),  # type: ignore[arg-type]
        (lambda: TopK(True), "top_k is True"),
        (lambda: TopNSigma(0), "top_n_sigma is 0.*, but must be a finite number above 0"),
        (lambda: Penalties(repeat_penalty=0), "repeat_penalty is 0.* from 0.01 to 100"),
        (lambda: Penalties(repeat_last_n=-2), "repeat_last_n is -2"),
        (lambda: XTC(xtc_threshold=0.6), "xtc_threshold is 0.6, but must be a number from 0 to 0.5"),
        (lambda: DRY(dry_base=0.5), "dry_base is 0.5"),
        (lambda: DRY(dry_breakers=[1]), "dry_breakers is .*, but must be characters"),
        (lambda: Mirostat(-1), "sampler mirostat: tau is -1"),
    ],
)
def test_options_out_of_range(make: Callable[[], Sampler], message: str) -> None:
    with pytest.raises(SamplerError, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    assert TopP(np.float32(0.5)) == TopP(0.5)  # type: ignore[arg-type]
    assert TopK(np.int64(5)) == TopK(5)  # type: ignore[arg-type]


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(random_model: Path) -> Iterator[LanguageModel]:
    registry = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
    with load(random_model, backend="stub", registry=registry) as opened:
        yield opened


OPTIONS = [
    {},
    {"sampler": "top-p", "temperature": 1.3, "repeat_penalty": 1.2},
    {"samplers": "dry;penalties=1.1;typical;xtc;temperature=1.2"},
    {"sampler": "mirostat-v2", "mirostat_v2_tau": 4.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "top-p", "chain", "mirostat"])
def test_same_seed_same_text_alone_or_in_a_batch(model: LanguageModel, options: dict[str, Any]) -> None:
    prompts = [[1, 2, 3], [7] * 20, [4, 5], [9, 8, 7, 6]]
    settings = {"max_tokens": 40, "seed": 11, "ignore_end": True} | options
    alone = [[piece.token for piece in model.generate(prompt, **settings)] for prompt in prompts]
    together = model.generate_batch(prompts, **settings)
    assert [list(done.tokens) for done in together] == alone
    backwards = model.generate_batch(prompts[::-1], **settings)
    assert [list(done.tokens) for done in backwards[::-1]] == alone
    assert [piece.token for piece in model.generate(prompts[0], **settings | {"seed": 12})] != alone[0]


def test_greedy_is_the_argmax(model: LanguageModel) -> None:
    tokens = [piece.token for piece in model.generate([1, 2, 3], sampler="greedy", max_tokens=5, ignore_end=True)]
    expected = [1, 2, 3]
    with model.session() as session:
        for token in tokens:
            assert token == session.feed(expected)[0].argmax()
            expected = [int(token)]  # type: ignore[arg-type]


def test_a_banned_token_never_comes(model: LanguageModel) -> None:
    free = model.generate_batch([[1, 2, 3]], max_tokens=60, seed=1, ignore_end=True, samplers="temperature=2")[0].tokens
    banned = dict.fromkeys(free, -math.inf)
    again = model.generate_batch([[1, 2, 3]], max_tokens=60, seed=1, ignore_end=True, logit_bias=banned)[0].tokens
    assert not set(free) & set(again)
