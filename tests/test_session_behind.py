"""A session that knows more than its cache holds, or less: the next step of a text sets that right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sis_llama
from tiny_models import metadata, write_model

from sis_core.backend import BackendOptions, Cache
from sis_core.errors import ContextError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch, Output
from sis_core.texts.session import CHUNK, Session

IDS = [256, 1, 2, 3, 50, 60, 70, 80]


class Interrupted(Model):
    """Ctrl-C comes after the backend's step, before anybody noted it."""

    torn = False

    def step(self, batch: Batch, cache: Cache) -> Output:
        output = super().step(batch, cache)
        if self.torn:
            self.torn = False
            raise KeyboardInterrupt
        return output


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Interrupted]:
    path = write_model(tmp_path / "long.gguf", metadata(llama__context_length=2000))
    options = BackendOptions(kv_type="f32")
    with open_model(Interrupted, path, Registry.of(sis_llama), backend="numpy", options=options) as found:
        yield found


def test_an_interrupt_between_a_step_and_its_note(model: Interrupted) -> None:
    with Session(model) as torn, Session(model) as whole:
        torn.feed(IDS[:4])
        model.torn = True
        with pytest.raises(KeyboardInterrupt):
            torn.feed([9, 9, 9])
        assert torn.tokens() == IDS[:4]
        found = torn.feed(IDS[4:])
        assert np.abs(found - whole.feed(IDS)).max() < 1e-5
        assert torn.stats.rows_again == 0  # this cache can go back to any beginning


@pytest.mark.parametrize("n", [CHUNK - 1, CHUNK + 1, 2 * CHUNK + 100])
def test_what_the_cache_lost_is_fed_again(model: Interrupted, n: int) -> None:
    ids = np.random.default_rng(1).integers(0, 256, n + 1).tolist()
    other = IDS * 3
    with Session(model, max_tokens=4000) as lossy, Session(model) as whole:
        lossy.feed(ids[:n])
        lossy.feed(other, 1)
        before = lossy.stats.rows
        lossy._cache.drop(0)
        lossy._cache.truncate(1, 5)
        assert (lossy.behind(0), lossy.behind(1), lossy.reach(0, n)) == (n, len(other) - 5, 0)
        found = lossy.step({0: ids[n:], 1: [7]})
        wanted = whole.feed(ids), whole.feed([*other, 7], 1)
        assert np.abs(found[0] - wanted[0]).max() < 1e-4
        assert np.abs(found[1] - wanted[1]).max() < 1e-4
        again = n + len(other) - 5
        assert (lossy.stats.rows_again, lossy.stats.rows - before) == (again, again + 2)
        assert lossy.behind(0) == lossy.behind(1) == 0


def test_a_step_that_fails_while_it_catches_up_changes_no_text(model: Interrupted) -> None:
    with Session(model) as session, Session(model) as whole:
        session.feed(IDS)
        session._cache.drop(0)
        model.torn = True
        with pytest.raises(KeyboardInterrupt):
            session.feed([5])
        assert session.tokens() == IDS
        assert np.abs(session.feed([6]) - whole.feed([*IDS, 6])).max() < 1e-5


def test_forks_and_cuts_of_a_text_that_is_behind(model: Interrupted) -> None:
    with Session(model) as session, Session(model) as whole:
        session.feed(IDS)
        session._cache.truncate(0, 2)
        session.fork(0, 1, 6)
        session.truncate(0, 5)
        session.mark(0)  # nothing to keep, and no error
        assert (session.behind(0), session.behind(1)) == (3, 4)
        assert np.abs(session.feed([9], 0) - whole.feed([*IDS[:5], 9], 0)).max() < 1e-5
        assert np.abs(session.feed([9], 1) - whole.feed([*IDS[:6], 9], 1)).max() < 1e-5
        for wrong in (-1, 7):
            with pytest.raises(ContextError, match=f"cannot keep {wrong} tokens of 6"):
                session.truncate(0, wrong)
            with pytest.raises(ContextError, match=f"cannot share {wrong} tokens of 6"):
                session.fork(0, 2, wrong)
