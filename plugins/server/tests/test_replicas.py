"""One endpoint over replicas, on machines that are threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from sis_server.alike import start_alike
from sis_server.batch.in_process import post
from sis_server.guard import Guard, Rules
from sis_server.receiving import Limits
from sis_server.replicas import places
from sis_server.replicas.beginnings import BLOCK, SLACK, Beginnings, blocks
from sis_server.replicas.front import AT_ONCE, Front
from sis_server.replicas.places import State
from sis_server.replicas.replica import Replica, Serving
from starlette.types import ASGIApp, Message

from sis_core.errors import LostError
from sis_core.loading.options import LoadOptions
from sis_core.loading.recipe import Recipe
from sis_core.registry import Registry
from sis_core.source import Preset, resolve
from sis_core.testing.machines import ThreadRemote, Threads

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture(scope="module")
def machines() -> Iterator[Threads]:
    with Threads(2) as found:
        yield found


@pytest.fixture(scope="module")
def front_app(machines: Threads) -> tuple[Front, ASGIApp]:
    registry = Registry.load()
    path = resolve(None, registry.records("sources"))
    recipe = Recipe.of(path, LoadOptions(n_ctx=256, n_threads=1, batch_invariant=True), Preset(), registry)
    serving = Serving(("tiny",), None, None, 0.08, 64, Rules(hosts=frozenset()), Limits(), 0.0)
    replicas, identity = start_alike(machines, 2, Replica, recipe, serving, at_once=AT_ONCE)
    app = Front(replicas, identity, Limits())
    return app, Guard(app, Rules())


def engine(remote: ThreadRemote) -> Any:
    return remote._made()._served.engine


async def stream(app: ASGIApp, path: str, body: Any, gone: asyncio.Event | None = None) -> AsyncIterator[Message]:
    """The messages that answer a POST; the client leaves when ``gone`` is set."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
             "client": None, "server": None}  # fmt: skip
    parts = iter([{"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}])

    async def receive() -> Message:
        if (part := next(parts, None)) is not None:
            return part
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(scope, receive, messages.put)
        finally:
            messages.put_nowait(None)

    task = asyncio.ensure_future(run())
    while (message := await messages.get()) is not None:
        yield message
    await task


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def asked(prompt: str, **options: Any) -> dict[str, Any]:
    return {"prompt": prompt, "seed": 4, "max_tokens": 6, **options}


def test_replicas_answer_as_one_server(front_app: tuple[Front, ASGIApp], machines: Threads) -> None:
    _, app = front_app

    async def run() -> list[tuple[int, dict[str, Any]]]:
        bodies = [asked(f"{i} times upon a time") for i in range(4)]
        found = await asyncio.gather(*(post(app, TEXT, body) for body in bodies))
        return [*found, await post(app, TEXT, {"prompt": 7.5}), await post(app, "/v1/nowhere", {})]

    before = [engine(made).counts.requests for made in machines.made]
    *found, wrong, nowhere = asyncio.run(run())
    assert [status for status, _ in found] == [200] * 4
    assert (wrong[0], nowhere[0]) == (400, 404)
    assert [engine(made).counts.requests - n for made, n in zip(machines.made, before, strict=True)] == [2, 2]
    again = asyncio.run(run())[:4]
    assert [body["choices"] for _, body in again] == [body["choices"] for _, body in found]


def test_a_shared_beginning_goes_where_it_was_read(front_app: tuple[Front, ASGIApp], machines: Threads) -> None:
    _, app = front_app
    system = {"role": "system", "content": "You tell of a fox, a ring and a king. " * 12}

    async def run() -> None:
        for i in range(4):
            messages = [system, {"role": "user", "content": str(i)}]
            status, body = await post(app, CHAT, {"messages": messages, "max_tokens": 2})
            assert status == 200
            assert (body["usage"]["prompt_tokens_details"]["cached_tokens"] > 50) is (i > 0)

    before = [engine(made).counts.requests for made in machines.made]
    asyncio.run(run())
    assert sorted(engine(made).counts.requests - n for made, n in zip(machines.made, before, strict=True)) == [0, 4]


def lose_in_mid_stream(front_app: tuple[Front, ASGIApp], machines: Threads, path: str, body: Any) -> list[Message]:
    """The messages of a stream whose replica ends after the third, while another stream goes to its end."""
    place_of, app = front_app

    async def run() -> list[Message]:
        own: list[Message] = []
        other: list[Message] = []

        async def follow(found: list[Message], body: Any) -> None:
            async for message in stream(app, path, body):
                found.append(message)
                if found is own and len(own) == 3:
                    number = next(i for i, place in enumerate(place_of._places.all) if place.open and i != busy)
                    machines.made[number].lose()

        task = asyncio.ensure_future(follow(other, body))
        await until(lambda: other)
        busy = next(i for i, place in enumerate(place_of._places.all) if place.open)
        await asyncio.gather(task, follow(own, body))
        assert b"error" not in b"".join(message.get("body", b"") for message in other)
        status, _ = await post(app, TEXT, asked("Once"))
        assert status == 200
        await until(lambda: all(place.there for place in place_of._places.all))
        return own

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "field", "kind"),
    [(TEXT, "prompt", b"server_error"), ("/v1/messages", "messages", b"overloaded_error")],
)
def test_a_replica_lost_in_mid_stream(
    front_app: tuple[Front, ASGIApp], machines: Threads, path: str, field: str, kind: bytes
) -> None:
    value: Any = "Once" if field == "prompt" else [{"role": "user", "content": "Once"}]
    body = {field: value, "stream": True, "max_tokens": 100, "ignore_eos": True} if field == "prompt" else {
        field: value, "stream": True, "max_tokens": 100, "model": "tiny"
    }  # fmt: skip
    messages = lose_in_mid_stream(front_app, machines, path, body)
    last = messages[-1]["body"]
    assert b"data: " in last
    assert kind in last
    assert b"the replica that answered has ended; try again" in last
    assert not messages[-1]["more_body"]


def test_a_client_that_leaves_ends_its_text(front_app: tuple[Front, ASGIApp], machines: Threads) -> None:
    _, app = front_app

    async def run() -> None:
        gone = asyncio.Event()
        before = sum(engine(made).counts.cancelled for made in machines.made)
        async for _ in stream(app, TEXT, asked("Once", stream=True, max_tokens=200, ignore_eos=True), gone):
            gone.set()
        await until(lambda: sum(engine(made).counts.cancelled for made in machines.made) == before + 1)
        await until(lambda: not any(engine(made).n_open for made in machines.made))

    asyncio.run(run())


def test_no_replica_is_there(front_app: tuple[Front, ASGIApp]) -> None:
    place_of, app = front_app

    async def health() -> tuple[int, dict[str, Any]]:
        found = [message async for message in stream(app, "/health", {})]
        return found[0]["status"], json.loads(found[1]["body"])

    async def run() -> None:
        assert await health() == (200, {"status": "ok", "replicas": [
            {"machine": f"machine {i}", "state": "ready", "there": True, "open": 0, "lost": place.n_lost}
            for i, place in enumerate(place_of._places.all)
        ]})  # fmt: skip
        for place in place_of._places.all:
            place.state = State.AWAY
        status, body = await post(app, TEXT, asked("Once"))
        assert (status, body["error"]["type"]) == (503, "server_error")
        assert (await health())[0] == 503
        for place in place_of._places.all:
            place.state = State.READY
        assert (await health())[1]["status"] == "ok"

    asyncio.run(run())


def test_lost_before_the_first_word(front_app: tuple[Front, ASGIApp], monkeypatch: pytest.MonkeyPatch) -> None:
    place_of, app = front_app

    def ended(*_: Any) -> Iterator[Message]:
        raise LostError("ended", where="machine")
        yield

    async def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ThreadRemote, "stream", ended)
            status, body = await post(app, TEXT, asked("Once"))
            assert (status, body["error"]["message"]) == (503, "the replica that answered has ended; try again")
        await until(lambda: all(place.there for place in place_of._places.all))

    asyncio.run(run())


def test_who_comes_back_as_another_is_used_no_more(
    front_app: tuple[Front, ASGIApp], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place_of, _ = front_app

    async def run() -> None:
        monkeypatch.setattr(places, "check_alike", refuse)
        place_of._places.lost(place_of._places.all[1], LostError("ended"))
        await until(lambda: "is used no more" in caplog.text)
        assert [place.there for place in place_of._places.all] == [True, False]
        place_of._places.all[1].state = State.READY

    def refuse(found: Any) -> None:
        raise ValueError("differs")

    asyncio.run(run())


def test_beginnings() -> None:
    known = Beginnings(3)
    long, other = blocks({"prompt": "a" * 10 * BLOCK}, ""), blocks({"prompt": "b" * 10 * BLOCK}, "")
    assert len(long) == 10
    assert known.choose(long, {0: 2, 1: 1, 2: 1}) == 1  # the least busy
    known.note(2, long[:3])
    known.note(0, long[:5])
    assert known.choose(long, {0: 1, 1: 0, 2: 0}) == 0
    assert known.choose(long, {1: 0, 2: 0}) == 2
    assert known.choose(long, {0: SLACK + 1, 1: 0, 2: 0}) == 2
    assert known.choose(other, {0: 1, 1: 1, 2: 0}) == 2
    known.forget(0)
    assert known.choose(long, {0: 0, 1: 0}) == 0
    assert not set(blocks({"prompt": "a" * 10 * BLOCK}, "key")) & set(long)
    assert blocks([], "") == blocks({"prompt": "short"}, "") == []
    chat = {"tools": [1], "messages": [{"content": "x" * 300}], "temperature": 1}
    assert blocks(chat, "") == blocks({**chat, "temperature": 0}, "")
