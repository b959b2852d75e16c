"""lm-eval's log-likelihoods through the server are those of `sis eval`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sis_core.sampler import log_softmax
from sis_core.workbench.evaluate import evaluate

TEXT = (
    "Once upon a time there was a hen who lived beside a goat. Every morning the goat went to the river, and the hen "
    "looked for corn in the yard. One day a fox came by and asked them for the way to the sea."
)


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    """lm-eval's model over the server; it takes the server's tokenizer."""
    models = pytest.importorskip("lm_eval.models.openai_completions", reason="the package lm-eval is not installed")
    return models.LocalCompletionsAPI(
        model="tiny", base_url=f"http://127.0.0.1:{server.port}/v1/completions", batch_size=4, num_concurrent=1
    )


def asked(kind: str, arguments: list[tuple[str, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=each, idx=i) for i, each in enumerate(arguments)]


@pytest.mark.full
def test_log_likelihoods_of_continuations(server: Any, client: Any) -> None:
    model = server.served.model
    pairs = [(TEXT[:i], TEXT[i : i + n]) for i, n in ((32, 38), (57, 12), (100, 60), (57, 1))]
    for (context, rest), (found, greedy) in zip(
        pairs, client.loglikelihood(asked("loglikelihood", pairs)), strict=True
    ):
        ids = model.tokenize(context + rest, add_special=False)
        n = len(model.tokenize(context.rstrip(), add_special=False))  # lm-eval gives spaces to what follows
        rows = log_softmax(model.logits(ids))[n - 1 : -1]
        assert found == pytest.approx(sum(row[token] for row, token in zip(rows, ids[n:], strict=True)), abs=1e-4)
        assert greedy == all(row.argmax() == token for row, token in zip(rows, ids[n:], strict=True))


@pytest.mark.full
def test_the_mean_is_that_of_sis_eval(server: Any, client: Any) -> None:
    """The second half of a chunk, which is what `sis eval` scores."""
    model = server.served.model
    ids = model.tokenize(TEXT)
    score = evaluate(model, ids, n_ctx=len(ids))
    first = len(ids) // 2 + 1
    likelihoods = client._loglikelihood_tokens([(("", ""), ids[:first], ids[first:])])
    assert score.n_tokens == len(ids) - first
    assert -likelihoods[0][0] / score.n_tokens == pytest.approx(score.nll, abs=1e-4)


@pytest.mark.full
def test_a_whole_text(server: Any, client: Any) -> None:
    """Rolling log-likelihoods, as perplexity tasks ask for them."""
    model = server.served.model
    (found,) = client.loglikelihood_rolling(asked("loglikelihood_rolling", [(TEXT,)]))
    end = min(model.tokenizer.end_tokens)
    ids = [end, *model.tokenize(TEXT, add_special=False)]
    rows = log_softmax(model.logits(ids))[:-1]
    assert math.isfinite(found)
    assert found == pytest.approx(sum(row[token] for row, token in zip(rows, ids[1:], strict=True)), abs=1e-3)
