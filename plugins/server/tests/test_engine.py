"""The engine by itself: what fails ends what it must, and nothing hangs."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from sis_server.engine import Engine
from sis_server.errors import ApiError
from sis_server.metrics import Metrics

from sis_core import load
from sis_core.errors import SisError
from sis_core.texts.drafting import make_drafting
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Piece, Request
from sis_core.texts.scheduler import Scheduler


class Faulty(Scheduler):
    """Fails when it is told to."""

    fails_to_add = fails_to_step = False

    def add(self, request: Request) -> int:
        if self.fails_to_add:
            raise MemoryError
        return super().add(request)

    def step(self) -> list[Piece]:
        if self.fails_to_step:
            self.fails_to_step = False
            self._drop_all()
            raise RuntimeError("the backend burnt down")
        return super().step()


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    with load(backend="stub") as model:
        yield model


@pytest.fixture
def scheduler(model: LanguageModel) -> Faulty:
    return Faulty(model.session(n_ctx=256))


@pytest.fixture
def engine(scheduler: Faulty) -> Iterator[Engine]:
    engine = Engine(lambda: scheduler, queue_limit=4)
    engine.start()
    yield engine
    engine.close()


def heard(engine: Engine, request: Request) -> list[Piece]:
    """All pieces of a text."""
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    engine.submit(request, pieces.put)
    found = [pieces.get(timeout=60)]
    while found[-1].finish_reason is None:
        found.append(pieces.get(timeout=60))
    return found


def test_a_text_is_heard_to_its_end(engine: Engine, model: LanguageModel) -> None:
    request = model.request("Once", seed=1, max_tokens=9, ignore_end=True)
    assert "".join(heard(engine, request)) == "".join(model.stream([request]))
    assert engine.n_open == 0
    assert engine.counts.generated_tokens == 9


def test_a_step_that_fails_ends_its_texts_and_not_the_engine(
    engine: Engine, scheduler: Faulty, model: LanguageModel
) -> None:
    scheduler.fails_to_step = True
    (piece,) = heard(engine, model.request("Once"))
    assert "burnt down" in str(piece.error)
    assert heard(engine, model.request("Once", max_tokens=2, ignore_end=True))[-1].finish_reason == "length"


def test_no_memory_for_one_text_ends_that_one(engine: Engine, scheduler: Faulty, model: LanguageModel) -> None:
    scheduler.fails_to_add = True
    (piece,) = heard(engine, model.request("Once"))
    assert "MemoryError" in str(piece.error)
    scheduler.fails_to_add = False
    assert len(heard(engine, model.request("Once", max_tokens=2, ignore_end=True))) == 2


def test_a_scheduler_that_cannot_be_made_is_an_error_at_the_start() -> None:
    def make() -> Scheduler:
        raise SisError("no memory for a cache", where="test")

    engine = Engine(make, queue_limit=1)
    with pytest.raises(SisError, match="no memory"):
        engine.start()
    with pytest.raises(ApiError):
        engine.submit(Request([1]), lambda piece: None)
    engine.close()


def test_closing_ends_what_is_on_its_way(engine: Engine, model: LanguageModel) -> None:
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    engine.submit(model.request("Once", max_tokens=None, context="shift", ignore_end=True), pieces.put)
    assert pieces.get(timeout=60).finish_reason is None
    engine.close()
    last = None
    while not pieces.empty():
        last = pieces.get()
    assert last is not None
    assert "shutting down" in str(last.error)
    with pytest.raises(ApiError, match="shutting down"):
        engine.submit(model.request("Once"), pieces.put)


def test_guesses_are_counted_by_drafters(model: LanguageModel) -> None:
    pytest.importorskip("sis_drafters", reason="sis-drafters brings what is asked for here")
    metrics = Metrics()
    drafting = make_drafting(model.registry, "suffix")
    engine = Engine(lambda: Scheduler(model.session(n_ctx=256), drafting=drafting), queue_limit=4)
    metrics.watch("hen", engine)
    engine.start()
    try:
        request = model.request("Once", seed=1, max_tokens=60, ignore_end=True)
        wanted = "".join(model.stream([request]))
        for _ in range(2):  # the second time it is known
            assert "".join(heard(engine, request)) == wanted
    finally:
        engine.close()
    counts = engine.counts
    assert 40 < counts.guessed_right["suffix"] <= counts.guessed["suffix"] == counts.rows_ahead
    assert counts.rows_wasted == counts.rows_ahead - counts.guessed_right["suffix"]
    for _ in range(2):  # while it runs, and after it has ended
        text = metrics.text().decode()
        assert f'sis_guessed_total{{drafter="suffix",model="hen"}} {float(counts.rows_ahead)}' in text
        assert f'sis_rows_wasted_total{{model="hen"}} {float(counts.rows_wasted)}' in text
        metrics.forget("hen", engine)
