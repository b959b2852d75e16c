"""Sessions: feeding, limits, switching backends, recovering from failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import sis_llama
from attrs import evolve
from tiny_models import metadata, write_model

from sis_core import hookimpl
from sis_core.backend import Backend, BackendOptions, Cache, Forward
from sis_core.backends.stub import StubForward
from sis_core.block import Network
from sis_core.errors import BackendError, ClosedError, ContextError, MemoryLimitError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch, Output, Run
from sis_core.texts.session import CHUNK, Session


class FailingForward(StubForward):
    """Fails whenever it is told to."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        if Failing.failures:
            Failing.failures -= 1
            raise RuntimeError("the kernel tripped")
        return super().step(batch, cache)


class Failing(Backend):
    name, score = "failing", 90
    failures = 0

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
        return FailingForward(network, layers)

    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [self]


def opened(path: Path, backend: str | None = "numpy", *plugins: object, **options: object) -> Model:
    return open_model(
        Model, path, Registry.of(sis_llama, *plugins), backend=backend, options=BackendOptions(kv_type="f32")
    )


@pytest.fixture
def model(random_model: Path) -> Iterator[Model]:
    with opened(random_model) as found:
        yield found


@pytest.fixture(autouse=True)
def no_failures() -> Iterator[None]:
    Failing.failures = 0
    yield
    Failing.failures = 0


def test_feeding_at_once_equals_one_by_one(model: Model) -> None:
    ids = [256, 1, 2, 3, 50, 60]
    with Session(model) as once, Session(model) as slowly:
        whole = once.feed(ids, every=True)
        single = np.concatenate([slowly.feed([token]) for token in ids])
        np.testing.assert_allclose(single, whole, rtol=0, atol=1e-5)
        assert once.tokens() == slowly.tokens() == ids
        assert (once.stats.steps, slowly.stats.steps) == (1, 6)


def test_long_prompts_run_in_chunks(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 256, 1100).tolist()
    path = write_model(tmp_path / "long.gguf", metadata(llama__context_length=2000))
    with opened(path) as model, Session(model, n_ctx=1200) as session:
        logits = session.feed(ids)
        assert logits.shape == (1, 260)
        assert (session.stats.steps, session.stats.rows) == (-(-1100 // CHUNK), 1100)


def test_a_family_may_ask_for_longer_steps(tmp_path: Path) -> None:
    path = write_model(tmp_path / "long.gguf", metadata(llama__context_length=2000))
    with opened(path, "stub") as model:
        model.network = evolve(model.network, step_rows=1000)
        with Session(model) as session:
            session.feed([1] * 1100)
            session.hidden([1] * 400)
            assert (session.stats.steps, session.stats.rows) == (3, 1500)


def test_several_sequences_share_a_step(model: Model) -> None:
    texts = {0: [256, 5, 6], 7: [256, 9], 3: [256, 70, 80, 90, 100]}
    with Session(model, max_tokens=256) as together, Session(model, max_tokens=256) as apart:
        found = together.step(texts)
        assert together.stats.steps == 1
        for sequence, ids in texts.items():
            np.testing.assert_allclose(found[sequence], apart.feed(ids, sequence), rtol=0, atol=1e-5)


def test_a_text_longer_than_the_context_names_both_numbers(model: Model) -> None:
    with Session(model) as session:
        session.feed([256] * 100)
        with pytest.raises(ContextError, match=r"131 tokens .* context of 128"):
            session.feed([1] * 31)
        assert len(session.tokens()) == 100
        session.feed([1] * 28)


def test_rewrite_keeps_the_common_beginning(model: Model) -> None:
    with Session(model) as session, Session(model) as fresh:
        session.feed(range(50))
        before = session.stats.rows
        session.rewrite(0, [*range(40), 99, 98])
        assert session.stats.rows == before + 2
        np.testing.assert_allclose(session.feed([1]), fresh.feed([*range(40), 99, 98, 1]), rtol=0, atol=1e-5)


def test_fork_and_drop(model: Model) -> None:
    with Session(model, max_tokens=256) as session:
        first = session.feed(range(70))
        used = session.nbytes
        session.fork(0, 1)
        assert session.nbytes == used
        session.truncate(1, 69)
        np.testing.assert_allclose(session.feed([69], 1), first, rtol=0, atol=1e-5)
        session.drop(0)
        session.drop(1)
        assert session.nbytes == 0


@pytest.mark.parametrize("act", [lambda s: s.truncate(4, 0), lambda s: s.fork(4, 5), lambda s: s.save(4)])
def test_a_sequence_that_is_not_there(act: Callable[[Session], object], model: Model) -> None:
    with Session(model) as session:
        session.feed([1, 2], 3)
        with pytest.raises(ContextError, match=r"sequence 4: there is no such sequence. There are: 3"):
            act(session)
        assert (session.tokens(3), session.length(5)) == ([1, 2], 0)
        session.rewrite(4, [1, 2])  # says what a sequence holds from now on: it need not be there
        session.drop(4)
        with pytest.raises(ContextError, match="no such sequence"):
            act(session)


def test_hidden_states(model: Model) -> None:
    with Session(model) as session:
        hidden = session.hidden([256, 1, 2])
        assert hidden.shape == (3, 32)
        assert session.tokens() == [256, 1, 2]


def test_switching_backends_keeps_the_text(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    with Session(model) as session, Session(model) as steady:
        session.feed([256, 1, 2, 3])
        steady.feed([256, 1, 2, 3])
        with caplog.at_level(logging.WARNING):
            session.use_backend("stub")
        assert [r.getMessage() for r in caplog.records] == [
            "backend changed from numpy to stub; 4 tokens are computed again"
        ]
        stub = session.feed([4])
        session.use_backend("numpy")
        assert session.tokens() == [256, 1, 2, 3, 4]
        real = steady.feed([4, 5])
        assert not np.allclose(stub, real)
        np.testing.assert_allclose(session.feed([5]), real, rtol=0, atol=1e-5)
    assert not model.closed


def test_token_out_of_range_is_refused_or_clamped(model: Model) -> None:
    with Session(model) as strict, pytest.raises(BackendError, match="token 260 is outside the vocabulary of 260"):
        strict.feed([260])
    with Session(model, on_error="degrade") as session:
        found = session.feed([1, 9999, -5])
        assert session.tokens() == [1, 259, 0]
        assert session.degraded
        assert found.shape == (1, 260)


def test_strict_reports_the_backend(random_model: Path) -> None:
    with opened(random_model, None, Failing()) as model, Session(model) as session:
        assert model.backend == "failing"
        Failing.failures = 1
        with pytest.raises(BackendError, match="backend failing: a step failed: RuntimeError: the kernel tripped"):
            session.feed([1])
        assert session.tokens() == []
        session.feed([1])


def test_degrade_falls_back_to_the_next_real_backend(random_model: Path) -> None:
    with (
        opened(random_model, None, Failing()) as model,
        Session(model, on_error="degrade") as session,
        opened(random_model) as plain,
    ):
        Failing.failures = 1
        found = session.feed([256, 1, 2])
        assert session.model.backend == "numpy"
        assert (session.degraded, session.stats.degraded) == (True, 1)
        with Session(plain) as reference:
            np.testing.assert_allclose(found, reference.feed([256, 1, 2]), rtol=0, atol=1e-6)


def test_degrade_gives_up_after_three_failures(random_model: Path) -> None:
    with opened(random_model, "failing", Failing()) as model, Session(model, on_error="degrade") as session:
        session._later_backends = list  # type: ignore[method-assign]
        Failing.failures = 5
        with pytest.raises(BackendError, match="the kernel tripped"):
            session.feed([1])
        assert Failing.failures == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_degrade_never_swallows(
    random_model: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(self: StubForward, batch: Batch, cache: Cache) -> Output:
        raise error

    with opened(random_model, "failing", Failing()) as model, Session(model, on_error="degrade") as session:
        monkeypatch.setattr(FailingForward, "step", trip)
        with pytest.raises(error):
            session.feed([1])


def test_closed_things_say_so(random_model: Path) -> None:
    model = opened(random_model)
    session = Session(model)
    session.feed([1])
    session.close()
    with pytest.raises(ClosedError, match="session: is closed"):
        session.feed([2])
    other = Session(model)
    model.close()
    model.close()
    with pytest.raises(ClosedError, match=r"random\.gguf: is closed"):
        other.feed([2])


def test_close_waits_for_running_steps(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on, order = threading.Event(), threading.Event(), []
    original = StubForward.step

    def slow(self: StubForward, batch: Batch, cache: Cache) -> Output:
        inside.set()
        assert go_on.wait(10)
        order.append("step")
        return original(self, batch, cache)

    monkeypatch.setattr(StubForward, "step", slow)
    model = opened(random_model, "stub")
    session = Session(model)
    stepping = threading.Thread(target=session.feed, args=([1],))
    stepping.start()
    assert inside.wait(10)
    closing = threading.Thread(target=lambda: (model.close(), order.append("close")))
    closing.start()
    go_on.set()
    stepping.join(10)
    closing.join(10)
    assert order == ["step", "close"]


def test_two_threads_get_what_each_gets_alone(model: Model) -> None:
    texts = [[256, *range(i, i + 40)] for i in range(4)]
    with Session(model) as session:
        alone = []
        for text in texts:
            session.rewrite(0, [])
            alone.append(session.feed(text))
    found: list[object] = [None] * 4

    def work(i: int) -> None:
        with Session(model) as mine:
            found[i] = mine.feed(texts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)


def test_a_cache_of_another_model_is_refused(random_model: Path) -> None:
    with opened(random_model) as one, opened(random_model) as other:
        cache = one.new_cache(64)
        with pytest.raises(BackendError, match="this cache was made by another model or backend"):
            other.step(Batch.of([1]), cache)
        stub = one.with_backend("stub")
        with pytest.raises(BackendError, match="made by another model or backend"):
            stub.step(Batch.of([1]), cache)
        stub.close()


def test_adapters_are_refused_where_nobody_knows_them(model: Model) -> None:
    with pytest.raises(BackendError, match="knows no adapters"):
        model.step(Batch([1], (Run(0, 0, 1),), [0], adapters={0: "mine"}), model.new_cache(32))


def test_a_failed_switch_leaves_the_session_as_it_was(random_model: Path) -> None:
    with opened(random_model, "numpy", Failing()) as model, Session(model) as session, Session(model) as steady:
        session.feed([256, 1, 2])
        steady.feed([256, 1, 2])
        Failing.failures = 1
        with pytest.raises(RuntimeError, match="the kernel tripped"):
            session.use_backend("failing")
        assert (session.model, session.tokens()) == (model, [256, 1, 2])
        np.testing.assert_array_equal(session.feed([3]), steady.feed([3]))


def test_a_switch_keeps_shared_beginnings_shared(model: Model) -> None:
    with Session(model, max_tokens=128) as session:
        session.feed(range(60))
        for target in (1, 2, 3):
            session.fork(0, target)
        used = session.nbytes
        session.use_backend("numpy")
        assert session.nbytes == used
        assert session.tokens(3) == list(range(60))


def test_a_full_cache_is_no_reason_to_change_the_backend(random_model: Path) -> None:
    with opened(random_model, None, Failing()) as model, Session(model, n_ctx=64, on_error="degrade") as session:
        session.feed([1] * 60)
        with pytest.raises(MemoryLimitError, match="is full"):
            session.feed([1] * 40, 1)
        assert (session.model.backend, session.degraded) == ("failing", False)


def test_degrade_goes_past_a_backend_that_cannot_be_bound(random_model: Path) -> None:
    class Unbindable(Backend):
        name, score = "unbindable", 50

        def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
            raise RuntimeError("cannot bind")

        @hookimpl
        def sis_register_backends(self) -> list[Backend]:
            return [self]

    with (
        opened(random_model, "failing", Failing(), Unbindable()) as model,
        Session(model, on_error="degrade") as session,
    ):
        Failing.failures = 1
        session.feed([1, 2])
        assert session.model.backend == "numpy"


def test_rewrite_is_all_or_nothing(model: Model) -> None:
    with Session(model) as session:
        session.feed(range(50))
        with pytest.raises(ContextError, match="129 tokens does not fit"):
            session.rewrite(0, [*range(40), *[1] * 89])
        assert session.tokens() == list(range(50))


@pytest.mark.parametrize("n_ctx", [0, -1, 129])
def test_a_session_stays_within_the_models_context(model: Model, n_ctx: int) -> None:
    with pytest.raises(ContextError, match=f"a context of {n_ctx} tokens is not within 1 to the 128"):
        Session(model, n_ctx=n_ctx)


def test_batch_invariance_is_exact(random_model: Path) -> None:
    options = BackendOptions(kv_type="f32", batch_invariant=True)
    with open_model(Model, random_model, Registry.of(sis_llama), backend="numpy", options=options) as model:
        ids = [256, *range(20)]
        with Session(model, max_tokens=512) as alone, Session(model, max_tokens=512) as crowd:
            wanted = alone.feed(ids, every=True)
            found = crowd.step({0: ids, 1: ids[::-1], 2: [5] * 9}, every=True)[0]
            np.testing.assert_array_equal(found, wanted)
            alone.truncate(0, 5)
            np.testing.assert_array_equal(np.concatenate([alone.feed([t]) for t in ids[5:]]), wanted[5:])
        assert model.grains == ("numpy layer, row by row",) * 2
        cache = model.new_cache(32)
        with pytest.raises(MemoryLimitError):
            model.step(Batch.of([1] * 40), cache)
        assert (cache.length(0), cache.nbytes) == (0, 0)


class AdaptingForward(StubForward):
    """Writes down which adapters each step was asked for, and leaves them out."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        Adapting.asked.append(dict(batch.adapters))
        return super().step(evolve(batch, adapters={}), cache)


class Adapting(Backend):
    name, score = "adapting", 90
    asked: ClassVar[list[dict[int, str]]] = []

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
        return AdaptingForward(network, layers)

    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [self]


def test_an_adapter_goes_with_its_sequence(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "adapters", frozenset({"poet"}))
    with opened(random_model, "adapting", Adapting()) as model, Session(model, max_tokens=256) as session:
        Adapting.asked.clear()
        with pytest.raises(BackendError, match="sequence 1: the model has no adapter 'painter'"):
            session.adapt(1, "painter")
        session.adapt(1, "poet")
        session.step({0: [256, 7], 1: [256, 7]})
        session.fork(1, 2)
        session.fork(0, 3)
        session.step({2: [8], 3: [8]})
        assert Adapting.asked == [{1: "poet"}, {2: "poet"}]
        with pytest.raises(BackendError, match="sequence 2: holds tokens that another adapter computed"):
            session.adapt(2, None)
        Adapting.asked.clear()
        session.use_backend("adapting")
        assert Adapting.asked == [{}, {1: "poet"}, {2: "poet"}, {}]  # shared with those of the same adapter alone
        assert [session.length(sequence) for sequence in range(4)] == [2, 2, 3, 3]
        session.drop(1)
        session.feed([256], 1)
        assert Adapting.asked[-1] == {}
