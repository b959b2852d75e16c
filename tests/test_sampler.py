"""The contract's own arithmetic (the draw, the chain), and what each sampler does."""

from __future__ import annotations

import math
import sys
import time
import zlib
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
from sis_core.sampler import Sampler, SamplerContext, SamplerState, Truncation, _place, draw, log_softmax, uniform
from sis_core.testing import check_sampler
from sis_core.texts.chain import Chain
from sis_core.texts.chain_text import make_chain
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


# The draw -------------------------------------------------------------------------------------------------------------


def philox(counter: int, key: int) -> list[int]:
    """Philox 4x64-10 as its paper defines it: four words for a counter of 256 bits and a key of 128."""
    ones = 2**64 - 1
    c = [counter >> shift & ones for shift in (0, 64, 128, 192)]
    k = [key & ones, key >> 64]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & ones, a >> 64 ^ c[3] ^ k[1], a & ones]
        k = [k[0] + 0x9E3779B97F4A7C15 & ones, k[1] + 0xBB67AE8584CAA73B & ones]
    return c


def test_uniform_is_the_same_everywhere() -> None:
    """Another generator, key or counter would change every seeded text."""
    assert philox(0, 0)[0] == 0x16554D9ECA36314C  # the paper's known answer
    for seed, step in ((0, 0), (1, 0), (0, 1), (2**63 + 5, 10**6), (-1, 3)):
        for purpose in ("", "xtc"):
            key = (zlib.crc32(purpose.encode()) << 64) + seed % 2**64
            assert uniform(seed, step, purpose) == (philox(step + 1, key)[0] >> 11) / 2**53
            numpys = int(np.random.Philox(key=key, counter=step).random_raw())
            assert uniform(seed, step, purpose) == (numpys >> 11) / 2**53
    assert uniform(0, 0) == 0.011546754286331562


def test_uniform_is_uniform() -> None:
    numbers = np.array([uniform(seed, step) for seed in range(20) for step in range(200)])
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 400).max() < 80  # four standard deviations
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.06


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 5000])
def test_draw_is_the_inverse_of_cumulated_probabilities(n: int) -> None:
    values = normal(n, 1)
    values[n // 2 + 1 :: 3] = -np.inf
    ends = np.cumsum(np.exp(values.astype(np.float64)))
    for step in range(100):
        assert draw(values, 3, step) == np.searchsorted(ends, uniform(3, step) * ends[-1], side="right")


def test_draw_never_takes_what_has_no_probability() -> None:
    values = np.full(1000, -5000, np.float32)
    values[[200, 700]] = 0
    assert {draw(values, 1, step) for step in range(50)} == {200, 700}
    values[:] = -np.inf
    values[17] = -1e38
    assert draw(values, 1, 2) == 17


def test_draw_shares_among_infinite_logits() -> None:
    values = logits(1, np.inf, 5, np.inf)
    assert {draw(values, 1, step) for step in range(50)} == {1, 3}
    chain = Chain.start([TopP(), Temperature()], SamplerContext(4))
    assert {chain.choose(values, step) for step in range(50)} == {1, 3}


@pytest.mark.parametrize("at", [0.0, 1 - 2**-53])
def test_draw_at_the_ends(at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.sampler.uniform", lambda seed, step: at)
    for n in (1, 3, 300, 70_000):
        values = normal(n)
        values[0] = values[-1] = -5000  # weight zero at both ends
        values[n // 2] = 3
        alive = np.flatnonzero(values > -5000) if n > 1 else [0]
        assert draw(values, 0, 0) == alive[0 if at == 0 else -1]


def test_a_place_where_rounding_leaves_none() -> None:
    ends = np.array([0.0, 0.5, 0.5, 1.0, 1.0])
    assert [_place(ends, target) for target in (0.0, 0.4, 0.5, 0.99, 1.0, 1.1)] == [1, 1, 3, 3, 3, 3]


def test_log_softmax() -> None:
    values = normal(1000)
    assert np.exp(log_softmax(values)).sum() == pytest.approx(1)
    assert log_softmax(logits(0, -np.inf)).tolist() == [0, -math.inf]


# The chain ------------------------------------------------------------------------------------------------------------


class Doing(Sampler):
    """Does anything at all to the logits."""

    name = "doing"

    def __init__(self, function: Callable[[F32], Any]) -> None:
        self.function = function
        self.accepted: list[int] = []

    def start(self, context: SamplerContext) -> SamplerState:
        outer = self

        class State(SamplerState):
            def apply(self, logits: F32) -> None:
                outer.function(logits)

            def accept(self, token: int) -> None:
                outer.accepted.append(token)

        return State()


def chain_of(function: Callable[[F32], Any]) -> Chain:
    return Chain.start([Temperature(), Doing(function)], SamplerContext(50))


def set_to(value: float) -> Callable[[F32], None]:
    def run(values: F32) -> None:
        values[20:] = value

    return run


def test_a_nan_names_the_sampler() -> None:
    with pytest.raises(SamplerError, match=r"^sampler doing: turned a logit into NaN"):
        chain_of(set_to(np.nan)).choose(normal(50), 0)


def test_a_nan_of_the_model_names_the_model() -> None:
    values = normal(50)
    values[7] = np.nan
    with pytest.raises(SamplerError, match="the model gave a logit that is NaN"):
        chain_of(set_to(0)).choose(values, 0)


def test_no_token_left_is_an_error_and_never_a_free_choice() -> None:
    with pytest.raises(SamplerError, match=r"^sampler doing: every token is forbidden"):
        chain_of(lambda values: values.fill(-np.inf)).choose(normal(50), 0)
    with pytest.raises(SamplerError, match="every logit is minus infinity"):
        chain_of(set_to(0)).choose(np.full(50, -np.inf, np.float32), 0)
    banned = LogitBias(dict.fromkeys(range(50), -math.inf))
    with pytest.raises(SamplerError, match=r"^sampler logit-bias: every token is forbidden"):
        Chain.start([banned], SamplerContext(50)).choose(normal(50), 0)


def test_a_strangers_exception_names_the_sampler() -> None:
    with pytest.raises(SamplerError, match=r"^sampler doing: failed: IndexError"):
        chain_of(lambda values: values[99]).choose(normal(50), 0)


def test_a_sampler_that_ends_the_program_is_named_instead() -> None:
    with pytest.raises(SamplerError, match=r"^sampler doing: failed: SystemExit: 3"):
        chain_of(lambda values: sys.exit(3)).choose(normal(50), 0)


class Keeping(Truncation):
    """Keeps whatever it is told to."""

    name = "keeping"

    def __init__(self, function: Callable[[F32], Any]) -> None:
        object.__setattr__(self, "function", function)

    def kept(self, logits: F32) -> Any:
        return self.function(logits)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([], "every token is forbidden"),
        ([3], "every token is forbidden"),
        ([50], "failed: IndexError"),
        ([False] * 50, "failed: TypeError: kept gave bool, not indices"),
        ([2.0], "failed: TypeError: kept gave float64, not indices"),
    ],
    ids=str,
)
def test_a_truncation_that_keeps_nobody_is_named(kept: list[Any], message: str) -> None:
    values = normal(50)
    values[3] = -np.inf
    chain = Chain.start([Keeping(lambda _: np.array(kept or np.empty(0, np.intp)))], SamplerContext(50))
    with pytest.raises(SamplerError, match=f"^sampler keeping: {message}"):
        chain.choose(values, 0)


def test_a_truncation_that_counts_from_the_end_names_a_token() -> None:
    chain = Chain.start([Keeping(lambda _: np.array([-50, -1])), Keeping(lambda _: np.array([-1]))], SamplerContext(50))
    assert chain.choose(normal(50), 0) == 49


@pytest.mark.parametrize(
    "names",
    [
        "greedy",
        "top-k;top-p;min-p;temperature",
        "top-k=3;penalties=1.3;top-p;xtc;temperature",
        "top-n-sigma=2;logit-bias=7=2;typical;temperature=0",
        "top-p;mirostat-v2",
        "temperature=1.5;top-k=200;dry;min-p",
    ],
)
def test_a_chain_goes_on_with_those_that_stay_as_it_would_with_all(names: str) -> None:
    """One sampler after the other on all logits gives the same as a chain, to the bit."""
    samplers = make_chain(REGISTRY, samplers=names)
    context = SamplerContext(3000, [1, 2, 3, 1, 2], None, 9)
    chain, states = Chain.start(samplers, context), [sampler.start(context) for sampler in samplers]
    for step in range(20):
        values = normal(3000, 3, step)
        values[::5] = -np.inf
        whole = values.copy()
        for state in states:
            state.apply(whole)
        together = values.copy()
        chain.apply(together)
        np.testing.assert_array_equal(together, whole)
        token = chain.choose(values, step)
        assert token == draw(whole, 9, step)
        for state in (chain, *states):
            state.accept(token)


class Failing(Doing):
    name = "failing"

    def start(self, context: SamplerContext) -> SamplerState:
        if self.function is max:
            raise KeyError("x")
        state = super().start(context)
        nothing: dict[int, None] = {}
        state.accept = nothing.__getitem__  # type: ignore[assignment, method-assign]
        return state


def test_a_strangers_exception_in_start_or_accept_names_the_sampler() -> None:
    with pytest.raises(SamplerError, match=r"^sampler failing: failed: KeyError: 'x'"):
        Chain.start([Failing(max)], SamplerContext(50))
    chain = Chain.start([Failing(set_to(0))], SamplerContext(50))
    with pytest.raises(SamplerError, match=r"^sampler failing: failed: KeyError: 7"):
        chain.accept(7)


def test_a_token_out_of_range_is_impossible() -> None:
    """Whatever is written into the logits, and whatever is returned, the choice is one of their places."""

    def spoil(values: F32) -> int:
        values[:] = np.where(np.arange(50) % 2, np.inf, -3e38)
        return 10**9

    chain = chain_of(spoil)
    assert {chain.choose(normal(50), step) for step in range(300)} == set(range(1, 50, 2))


def test_choose_leaves_the_logits_of_the_model_alone() -> None:
    values = normal(500)
    before = values.copy()
    Chain.start(make_chain(REGISTRY), SamplerContext(500)).choose(values, 0)
    np.testing.assert_array_equal(values, before)


def test_copies_of_a_chain_go_their_own_way() -> None:
    names = "logit-bias=1=1;penalties=1.3;dry;top-n-sigma=2;typical;xtc;temperature;mirostat-v2"
    values = [normal(300, 2, seed) for seed in range(30)]

    def go(chain: Chain, first: int, last: int) -> list[int]:
        found = []
        for step in range(first, last):
            found.append(chain.choose(values[step], step))
            chain.accept(found[-1])
        return found

    def start() -> Chain:
        return Chain.start(make_chain(REGISTRY, samplers=names), SamplerContext(300, [1, 2, 3, 1, 2], None, 9))

    whole = go(start(), 0, 30)
    chain = start()
    assert go(chain, 0, 10) == whole[:10]
    speculative = chain.copy()
    for token in (5, 6, 5, 6):
        speculative.choose(values[0], 10)
        speculative.accept(token)
    again = chain.copy()
    assert go(chain, 10, 30) == whole[10:]
    assert go(again, 10, 30) == whole[10:]


def test_a_large_vocabulary_is_fast() -> None:
    """The default chain over 150,000 tokens: 0.4 ms when written; a full sort alone would be 20 ms."""
    values = normal(151_936)
    chain = Chain.start(make_chain(REGISTRY), SamplerContext(len(values)))
    best = math.inf
    for step in range(20):
        started = time.perf_counter()
        chain.choose(values, step)
        best = min(best, time.perf_counter() - started)
    assert best < 5e-3


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
