"""How the rows of a step are shared."""

from __future__ import annotations

import pytest

from sis_core.cache.pages import PAGE_SIZE
from sis_core.errors import SisError
from sis_core.texts.budget import Budget


def test_decoding_comes_first_then_prompts_in_order() -> None:
    assert Budget(512).share({3: 1, 5: 400, 4: 1, 6: 300}) == {3: 1, 4: 1, 5: 400, 6: 110}
    assert Budget(512).share({3: 1, 4: 1}) == {3: 1, 4: 1}
    assert Budget(512).share({}) == {}


def test_the_oldest_prompt_gets_a_page_whoever_is_more_urgent() -> None:
    assert Budget(512).share({9: 600, 2: 600, 5: 600}) == {2: PAGE_SIZE, 9: 512 - PAGE_SIZE}
    assert Budget(512).share({9: 600, 2: 10}) == {2: 10, 9: 502}


def test_as_many_texts_run_as_leave_a_page() -> None:
    budget = Budget(100)
    assert budget.most_texts == 100 - PAGE_SIZE
    shares = budget.share(dict.fromkeys(range(budget.most_texts), 1) | {1000: 50})
    assert shares[1000] == PAGE_SIZE
    assert sum(shares.values()) == 100


def test_stall_makes_the_budget_time() -> None:
    budget = Budget(512, stall=0.1)
    waiting = {1: 1, 2: 1, 3: 2000}
    assert budget.share(waiting)[3] == PAGE_SIZE  # nothing is known yet
    assert budget.share({3: 2000}) == {3: 512}  # nobody waits
    budget.measure({1: 1, 2: 1}, 1000.0)  # says nothing of prompts
    assert budget.share(waiting)[3] == PAGE_SIZE
    budget.measure({3: 500}, 0.25)
    assert budget.share(waiting)[3] == 198  # 2,000 rows a second for a tenth, less those that decode
    budget.measure({3: 500}, 0.5)
    assert budget.share(waiting)[3] == 148
    budget.measure({3: 500}, 500.0)
    budget.measure({3: 500}, 500.0)
    budget.measure({3: 500}, 500.0)
    assert budget.share(waiting)[3] == PAGE_SIZE  # never less, so that the prompt gets done
    budget.measure({3: 512}, 0.0)
    for _ in range(9):
        budget.measure({3: 512}, 1e-6)
    assert budget.share(waiting)[3] == 510


@pytest.mark.parametrize("stall", [-0.1, float("nan")])
def test_nobody_waits_for_less_than_no_time(stall: float) -> None:
    with pytest.raises(SisError, match=r"stall: is .* but must be 0 or more seconds"):
        Budget(512, stall)
