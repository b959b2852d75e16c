"""Thousands of draws against distributions computed straight from the definitions, in float64.

Each reference below is written from the definition, token by token, and shares no code with the plugin. A G-test
compares the counts; the last tests show that it refuses samplers that are wrong by a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import pytest
import sis_samplers

from sis_core.arrays import F32, F64
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerContext, SamplerState
from sis_core.testing import check_sampler
from sis_core.testing.distribution import critical, misfit
from sis_core.testing.sampler import _Check as Check
from sis_core.texts.chain import Chain
from sis_core.texts.chain_text import make_chain

Logits = list[float]
N_VOCAB, N_DRAWS, SEED = 30, 4000, 20240229
PROMPT = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 1, 4, 1, 5)
NEVER = -math.inf


# The definitions ------------------------------------------------------------------------------------------------------


def softmax(logits: Logits) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / sum(weights) for w in weights]


def only(logits: Logits, kept: Sequence[int]) -> Logits:
    return [x if i in kept else NEVER for i, x in enumerate(logits)]


def in_order(key: Callable[[int], float], logits: Logits) -> list[int]:
    return sorted((i for i, x in enumerate(logits) if x > NEVER), key=lambda i: (key(i), i))


def greedy(logits: Logits) -> Logits:
    return only(logits, [logits.index(max(logits))])


def temperature(t: float) -> Callable[[Logits], Logits]:
    return lambda logits: [x / t for x in logits]


def top_k(k: int) -> Callable[[Logits], Logits]:
    return lambda logits: only(logits, in_order(lambda i: -logits[i], logits)[:k])


def until(order: list[int], p: list[float], wanted: float) -> list[int]:
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += p[i]
        if total >= wanted:
            break
    return kept


def top_p(wanted: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        return only(logits, until(in_order(lambda i: -p[i], logits), p, wanted))

    return run


def typical(wanted: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        return only(logits, until(in_order(lambda i: abs(-math.log(p[i]) - entropy), logits), p, wanted))

    return run


def min_p(least: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        return only(logits, [i for i in range(len(p)) if p[i] >= least * max(p)])

    return run


def top_n_sigma(n: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        finite = [x for x in logits if x > NEVER]
        mean = sum(finite) / len(finite)
        sigma = math.sqrt(sum((x - mean) ** 2 for x in finite) / len(finite))
        return only(logits, [i for i, x in enumerate(logits) if x >= max(finite) - n * sigma])

    return run


def xtc_removes(threshold: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        likely = [i for i in in_order(lambda i: -p[i], logits) if p[i] >= threshold]
        return only(logits, [i for i in range(len(p)) if i not in likely[:-1]])

    return run


def penalties(repeat: float, frequency: float, presence: float, last_n: int) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        recent = PROMPT[-last_n:]
        found = []
        for i, x in enumerate(logits):
            count = recent.count(i)
            if count:
                x = x / repeat if x > 0 else x * repeat
                x -= count * frequency + presence
            found.append(x)
        return found

    return run


def bias(values: dict[int, float]) -> Callable[[Logits], Logits]:
    return lambda logits: [x + values.get(i, 0.0) for i, x in enumerate(logits)]


def dry(multiplier: float, base: float, allowed: int) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        longest: dict[int, int] = {}
        for end in range(len(PROMPT) - 1):
            n = 0
            while n <= end and PROMPT[end - n] == PROMPT[len(PROMPT) - 1 - n]:
                n += 1
            longest[PROMPT[end + 1]] = max(n, longest.get(PROMPT[end + 1], 0))
        return [
            x - multiplier * base ** (longest[i] - allowed) if longest.get(i, 0) >= allowed else x
            for i, x in enumerate(logits)
        ]

    return run


def mirostat_v2(tau: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        kept = [i for i in range(len(p)) if p[i] > 0 and -math.log2(p[i]) <= 2 * tau]
        return only(logits, kept or [p.index(max(p))])

    return run


def mirostat(tau: float) -> Callable[[Logits], Logits]:
    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        order = in_order(lambda i: -p[i], logits)[:100]
        above = below = 0.0
        for i in range(len(order) - 1):
            t = math.log((i + 2) / (i + 1))
            above += t * math.log(p[order[i]] / p[order[i + 1]])
            below += t * t
        s = above / below
        epsilon = s - 1
        k = (epsilon * 2 ** (2 * tau) / (1 - len(logits) ** -epsilon)) ** (1 / s)
        return only(logits, order[: max(int(k), 1)])

    return run


Mixture = list[tuple[float, list[Callable[[Logits], Logits]]]]


def plain(*steps: Callable[[Logits], Logits]) -> Mixture:
    return [(1.0, list(steps))]


def distribution(mixture: Mixture, logits: F32) -> list[float]:
    total = [0.0] * len(logits)
    for weight, steps in mixture:
        values: Logits = logits.astype(np.float64).tolist()
        for step in steps:
            values = step(values)
        total = [a + weight * b for a, b in zip(total, softmax(values), strict=True)]
    return total


# The test -------------------------------------------------------------------------------------------------------------


def logits_of(shape: str) -> F32:
    generator = np.random.Generator(np.random.Philox(11))
    values = {
        "zipf": -1.1 * np.log(np.arange(1, N_VOCAB + 1)) + 2,
        "normal": generator.standard_normal(N_VOCAB) * 1.5,
        "flat": generator.standard_normal(N_VOCAB) * 0.2,
    }[shape]
    return generator.permutation(values).astype(np.float32)


def draws(samplers: Sequence[Sampler], logits: F32, *, accept: bool = False) -> list[int]:
    chain = Chain.start(samplers, SamplerContext(N_VOCAB, PROMPT, None, SEED))
    counts = [0] * N_VOCAB
    for step in range(N_DRAWS):
        token = chain.choose(logits, step)
        counts[token] += 1
        if accept:
            chain.accept(token)
    return counts


REGISTRY = Registry.of(sis_samplers)
CASES: dict[str, Mixture] = {
    "greedy": plain(greedy),
    "temperature=1": plain(),
    "temperature=0.6": plain(temperature(0.6)),
    "temperature=1.7": plain(temperature(1.7)),
    "temperature=0": plain(greedy),
    "top-k=5": plain(top_k(5)),
    "top-k=1000": plain(),
    "top-p=0.7": plain(top_p(0.7)),
    "min-p=0.2": plain(min_p(0.2)),
    "typical=0.6": plain(typical(0.6)),
    "top-n-sigma=1.3": plain(top_n_sigma(1.3)),
    "xtc:probability=0.4,threshold=0.08": [(0.4, [xtc_removes(0.08)]), (0.6, [])],
    "penalties:repeat_penalty=1.4,frequency_penalty=0.2,presence_penalty=0.3,repeat_last_n=12": plain(
        penalties(1.4, 0.2, 0.3, 12)
    ),
    "logit-bias=3=+1.5,7=-inf": plain(bias({3: 1.5, 7: NEVER})),
    "logit-bias=9=3;dry=0.5": plain(bias({9: 3}), dry(0.5, 1.75, 2)),
    "mirostat:tau=1.6": plain(mirostat(1.6)),
    "mirostat-v2:tau=1.6": plain(mirostat_v2(1.6)),
    "top-k=12;top-p=0.9;min-p=0.05;temperature=0.8": plain(top_k(12), top_p(0.9), min_p(0.05), temperature(0.8)),
    "temperature=0.8;top-p=0.9": plain(temperature(0.8), top_p(0.9)),
    "dry;penalties=1.3;top-n-sigma=2;typical=0.9;temperature=1.5": plain(
        dry(0.8, 1.75, 2), penalties(1.3, 0, 0, 64), top_n_sigma(2), typical(0.9), temperature(1.5)
    ),
    "top-k=10;xtc;temperature=0.7": [
        (0.5, [top_k(10), xtc_removes(0.1), temperature(0.7)]),
        (0.5, [top_k(10), temperature(0.7)]),
    ],
}


@pytest.mark.parametrize("shape", ["zipf", "normal", "flat"])
@pytest.mark.parametrize("text", CASES)
def test_draws_follow_the_definition(text: str, shape: str) -> None:
    logits = logits_of(shape)
    counts = draws(make_chain(REGISTRY, samplers=text), logits, accept="xtc" in text)  # its chance goes by steps
    assert misfit(counts, distribution(CASES[text], logits)) is None


def test_the_default_chain() -> None:
    logits = logits_of("zipf")
    wanted = plain(top_k(40), top_p(0.95), min_p(0.05), temperature(0.8))
    assert misfit(draws(make_chain(REGISTRY), logits), distribution(wanted, logits)) is None


# It can fail ----------------------------------------------------------------------------------------------------------


class Wrong(Sampler):
    """Applies a function of the logits, as float64 lists."""

    name = "wrong"

    def __init__(self, *functions: Callable[[Logits], Logits]) -> None:
        self.functions = functions

    def start(self, context: SamplerContext) -> SamplerState:
        return WrongState(self.functions)


class WrongState(SamplerState):
    def __init__(self, functions: Sequence[Callable[[Logits], Logits]]) -> None:
        self.functions = functions

    def apply(self, logits: F32) -> None:
        for function in self.functions:
            logits[:] = function(logits.astype(np.float64).tolist())


def short_of(wanted: float) -> Callable[[Logits], Logits]:
    """Top-p without the token that reaches p."""

    def run(logits: Logits) -> Logits:
        kept = [i for i, x in enumerate(top_p(wanted)(logits)) if x > NEVER]
        return only(logits, sorted(kept, key=lambda i: -logits[i])[: max(len(kept) - 1, 1)])

    return run


def not_renormalised(k: int, wanted: float) -> Callable[[Logits], Logits]:
    """Top-k, then top-p over probabilities that still sum to one with the tokens that top-k removed."""

    def run(logits: Logits) -> Logits:
        p = softmax(logits)
        return only(logits, until(in_order(lambda i: -p[i], logits)[:k], p, wanted))

    return run


def one_more(k: int) -> Callable[[Logits], Logits]:
    return top_k(k + 1)


def squared(logits: Logits) -> Logits:
    """A draw from p² instead of p."""
    return [2 * x for x in logits]


def a_little_warm(logits: Logits) -> Logits:
    return temperature(1.2)(logits)


def absolute(least: float) -> Callable[[Logits], Logits]:
    """Min-p against 1 instead of the likeliest."""
    return lambda logits: only(logits, [i for i, p in enumerate(softmax(logits)) if p >= least])


def all_divided(logits: Logits) -> Logits:
    """The repeat penalty without its case for negative logits."""
    return [x / 3 if i in PROMPT[-12:] else x for i, x in enumerate(logits)]


WRONG: dict[str, tuple[Wrong, Mixture]] = {
    "top-p stops one early": (Wrong(short_of(0.7)), plain(top_p(0.7))),
    "top-p does not renormalise after top-k": (Wrong(not_renormalised(12, 0.7)), plain(top_k(12), top_p(0.7))),
    "top-k keeps one more": (Wrong(one_more(5)), plain(top_k(5))),
    "draws from p²": (Wrong(squared), plain()),
    "temperature 1.2 for 1": (Wrong(a_little_warm), plain()),
    "temperature before top-p, not after": (Wrong(temperature(1.5), top_p(0.7)), plain(top_p(0.7), temperature(1.5))),
    "min-p against one": (Wrong(absolute(0.1)), plain(min_p(0.1))),
    "typical 0.5 for 0.6": (Wrong(typical(0.5)), plain(typical(0.6))),
    "XTC without chance": (Wrong(xtc_removes(0.08)), [(0.4, [xtc_removes(0.08)]), (0.6, [])]),
    "repeat penalty raises negative logits": (Wrong(all_divided), plain(penalties(3, 0, 0, 12))),
    "DRY off by one": (Wrong(bias({9: 3}), dry(0.5, 1.75, 3)), plain(bias({9: 3}), dry(0.5, 1.75, 2))),
    "bias forgotten": (Wrong(), plain(bias({3: 1.5}))),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_sampler_is_found(fault: str) -> None:
    sampler, wanted = WRONG[fault]
    shape = "normal" if "negative" in fault else "zipf"
    assert misfit(draws([sampler], logits_of(shape)), distribution(wanted, logits_of(shape))) is not None


SAYS = {  # what `check_sampler` says of those that do not look at the prompt
    "top-p stops one early": r"forbids token \d+, to which the definition gives 0\.\d",
    "top-p does not renormalise after top-k": r"allows token \d+, to which the definition gives 0 ",
    "top-k keeps one more": r"allows token \d+, to which the definition gives 0 ",
    "draws from p²": r"leaves token \d+ a probability of 0\.\d+, the definition 0\.\d+",
    "temperature 1.2 for 1": r"leaves token \d+ a probability of 0\.\d+, the definition 0\.\d+",
    "min-p against one": r"forbids token \d+, to which the definition gives 0\.\d",
    "XTC without chance": r"draws do not follow the definition: token \d+ was drawn \d+ times in 4000, not about \d+",
    "bias forgotten": r"leaves token \d+ a probability of",
}


@pytest.mark.parametrize("fault", SAYS)
def test_the_kit_names_it(fault: str) -> None:
    sampler, wanted = WRONG[fault]
    with pytest.raises(AssertionError, match=f"sampler wrong: {SAYS[fault]}"):
        Check(type(sampler), "XTC" in fault).definition(sampler, lambda logits, prompt: by(wanted, logits))


def by(mixture: Mixture, logits: F64) -> F64:
    return np.array(distribution(mixture, logits.astype(np.float32)))


@pytest.mark.parametrize("text", ["temperature=0.6", "top-p=0.7", "xtc:probability=0.4,threshold=0.08"])
def test_the_kit_lets_the_right_ones_pass(text: str) -> None:
    made = make_chain(REGISTRY, samplers=text)[0]
    fields = attrs.asdict(made)
    check_sampler(type(made), chance="xtc" in text, definition=lambda logits, prompt: by(CASES[text], logits), **fields)


def test_a_definition_gives_probabilities() -> None:
    temper = make_chain(REGISTRY, samplers="temperature=0.6")[0]
    with pytest.raises(AssertionError, match="its definition gave no 30 probabilities that sum to one"):
        Check(type(temper), False).definition(temper, lambda logits, prompt: logits)


def test_chance_of_another_size_is_found() -> None:
    logits = logits_of("zipf")
    counts = draws(make_chain(REGISTRY, samplers="xtc:probability=0.6,threshold=0.08"), logits, accept=True)
    assert misfit(counts, distribution(CASES["xtc:probability=0.4,threshold=0.08"], logits)) is not None


def test_a_draw_that_uses_its_number_twice_is_found() -> None:
    """XTC and the draw must not share their chance: here the same uniform number decides on both."""
    logits = logits_of("zipf")
    xtc = distribution([(1.0, [xtc_removes(0.08)])], logits)
    counts = [0] * N_VOCAB
    for u in (np.arange(N_DRAWS) + 0.5) / N_DRAWS:
        p = xtc if u < 0.4 else distribution(plain(), logits)
        counts[min(int(np.searchsorted(np.cumsum(p), u)), N_VOCAB - 1)] += 1
    assert misfit(counts, distribution(CASES["xtc:probability=0.4,threshold=0.08"], logits)) is not None


@pytest.mark.parametrize("df", [1, 2, 5, 29])
def test_critical_values(df: int) -> None:
    """The density of chi-square, summed above the critical value, is about one in ten thousand."""
    x = np.arange(critical(df), 400, 0.001)
    density = np.exp((df / 2 - 1) * np.log(x) - x / 2 - df / 2 * math.log(2) - math.lgamma(df / 2))
    assert density.sum() * 0.001 == pytest.approx(1e-4, rel=0.5)
