"""Rows of each step while many ask: a long prompt gets its share, and those that are being written do not stop."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sis_server import anthropic_fields, chat_asked, openai_chat, openai_text, responses_fields
from sis_server.engine import Engine
from sis_server.fields import ChatCompletion, TextCompletion
from tiny_models import metadata, write_model

from sis_core import load
from sis_core.cache.pages import PAGE_SIZE
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.part import Part
from sis_core.texts.request import Piece
from sis_core.texts.scheduler import Scheduler

N_LONG = 4096
AT_ONCE = 8
STALL_ROWS = 100


@pytest.fixture
def model(tmp_path: Path) -> Iterator[LanguageModel]:
    values = metadata(llama__context_length=2 * N_LONG)
    with load(write_model(tmp_path / "long.gguf", values), n_threads=1) as model:
        yield model


def test_a_long_prompt_under_endless_short_ones(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in each step at least, and those that are written go on: in rows, by a clock that counts them."""
    steps: list[dict[int, int]] = []
    session = model.session(n_ctx=2 * N_LONG, max_tokens=3 * N_LONG)
    n_rows = 0

    def clock() -> float:
        return n_rows / 1000

    scheduler = Scheduler(session, stall=STALL_ROWS / 1000, reuse=False, clock=clock)
    run = session.run

    def noted(parts: Sequence[Part], *args: Any, **options: Any) -> Any:
        nonlocal n_rows
        steps.append({part.sequence: len(part.tokens) for part in parts})
        n_rows += sum(steps[-1].values())
        return run(parts, *args, **options)

    monkeypatch.setattr(session, "run", noted)
    engine = Engine(lambda: scheduler, queue_limit=1000)
    engine.start()
    read: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    stop = False

    def short(piece: Piece | None = None) -> None:
        """Another short text whenever one has ended."""
        if not stop and (piece is None or piece.finish_reason is not None):
            engine.submit(model.request([65] * 40, max_tokens=60, ignore_end=True, seed=1), short)

    try:
        for _ in range(AT_ONCE):
            short()
        engine.submit(model.request([66] * N_LONG, max_tokens=1, ignore_end=True, seed=1), read.put)
        assert read.get(timeout=120).error is None
        stop = True
    finally:
        engine.close()
    its = [step for step in steps if step.get(AT_ONCE)]  # its number: it came after so many
    assert sum(step[AT_ONCE] for step in its) == N_LONG
    oldest = [step for step in its if not any(step.get(number, 0) > 1 for number in range(AT_ONCE))]
    assert min(step[AT_ONCE] for step in oldest[:-1]) >= PAGE_SIZE
    beside = [step for step in its if 1 in step.values()]
    assert len(beside) > len(its) / 2
    assert max(sum(step.values()) for step in beside[1:]) <= STALL_ROWS  # the longest pause of those that are written


@pytest.mark.parametrize(("tier", "priority"), [("auto", 0), ("flex", -1), ("priority", 1)])
def test_what_can_wait_says_so(server: Any, tier: Any, priority: int) -> None:
    """By every API; what the scheduler makes of it is tested beside it."""
    talk = [{"role": "user", "content": "Hello"}]
    asked = [
        openai_chat.read(ChatCompletion(messages=talk, service_tier=tier), {}, ""),
        responses_fields.read(responses_fields.Response(input="Hello", service_tier=tier), [], {}, ""),
        anthropic_fields.read(anthropic_fields.Message(messages=talk, max_tokens=1, service_tier=tier), {}, ""),
    ]
    requests = [request for chatting in asked for request in chat_asked.prepare(server.served, chatting)[0]]
    requests += openai_text.prepare(server.served, TextCompletion(prompt="Hello", service_tier=tier), {}, "")
    assert [request.priority for request in requests] == [priority] * 4
