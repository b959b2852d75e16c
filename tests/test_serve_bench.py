"""What `benchmarks/serve.py` makes of what clients saw."""

from __future__ import annotations

import itertools
import math

import pytest
from serving.figures import Search, figures, quantile
from serving.scenarios import SCENARIOS, Prompts
from serving.traffic import Seen


def tried(best: float, start: float, halvings: int) -> tuple[list[float], float]:
    """The rates that are tried on a server that keeps all up to ``best``, and what is found."""
    search, rates = Search(start, 2.0, halvings), []
    while search.rate is not None:
        rates.append(search.rate)
        search.tell(search.rate <= best)
    return rates, search.best


@pytest.mark.parametrize(
    ("best", "rates", "found"),
    [(5.0, [1, 2, 4, 8], 4), (0.3, [1, 0.5, 0.25], 0.25), (0.0, [1, 0.5, 0.25, 0.125, 0.0625], 0)],
)
def test_rates_rise_or_fall_to_the_highest_that_is_kept(best: float, rates: list[float], found: float) -> None:
    assert tried(best, 1.0, 0) == (rates, found)


def test_the_last_rise_is_halved() -> None:
    rates, found = tried(5.0, 1.0, 2)
    assert rates[-2:] == [pytest.approx(math.sqrt(32)), pytest.approx(math.sqrt(4 * math.sqrt(32)))]
    assert found == pytest.approx(math.sqrt(4 * math.sqrt(32)))


def test_a_request_is_good_when_nothing_of_it_was_late() -> None:
    good, slow, halting, cut = Seen(0.1, [0.1], True), Seen(2.5, [0.1], True), Seen(0.1, [0.1, 0.3], True), Seen()
    assert [one.good for one in (good, slow, halting, cut)] == [True, False, False, False]
    told = figures([good] * 19 + [cut], 1.0)
    assert told["kept"]
    assert (told["first_p50"], told["first_p99"]) == (0.1, math.inf)
    assert not figures([good] * 9 + [cut], 1.0)["kept"]
    assert not figures([], 1.0)["kept"]


def test_quantiles_are_values_that_occur() -> None:
    values = list(map(float, range(1, 101)))
    assert [quantile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


@pytest.mark.parametrize("name", SCENARIOS)
def test_prompts_begin_alike_and_grow(name: str) -> None:
    scenario, prompts = SCENARIOS[name], Prompts(list(range(100)), [7])
    one, other = (list(prompts.client(scenario, seed)) for seed in ("one", "other"))
    assert one == list(prompts.client(scenario, "one"))
    assert [len(prompt) for prompt in one] == [scenario.shared + i * scenario.own for i in range(1, scenario.turns + 1)]
    assert one[0][: scenario.shared] == other[0][: scenario.shared]
    assert one[0] != other[0]
    assert all(later[: len(before)] == before for before, later in itertools.pairwise(one))
