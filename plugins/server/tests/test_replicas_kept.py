"""Replicas that are drained, hang or are counted, on machines that are threads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sis_server.guard import Guard, Rules
from sis_server.receiving import Limits
from sis_server.replicas import places
from sis_server.replicas.everyone import labelled
from sis_server.replicas.front import Front
from sis_server.replicas.places import Place
from starlette.types import ASGIApp, Message

from sis_core.testing.machines import Threads

TEXT = "/v1/completions"
COUNTED = """# HELP sis_requests_total Requests taken.
# TYPE sis_requests_total counter
sis_requests_total{model="tiny"} %d.0
# HELP sis_gap_seconds Between two pieces.
# TYPE sis_gap_seconds histogram
sis_gap_seconds_bucket{le="0.1",model="tiny"} %d.0
sis_gap_seconds_bucket{le="+Inf",model="tiny"} %d.0
sis_gap_seconds_count{model="tiny"} %d.0
sis_gap_seconds_sum{model="tiny"} 0.5
"""
GO_ON = threading.Event()
"""Whoever hangs waits for it."""


class Teller:
    """A replica that says a few words; ``wait`` in a prompt keeps it before the last, and ``hang`` all of it."""

    def __init__(self) -> None:
        self._hangs, self._asked = False, 0

    def identity(self) -> dict[str, str]:
        return {"model": "tiny"}

    def alive(self) -> None:
        if self._hangs:
            GO_ON.wait(60)

    def leave(self, ticket: str) -> None:
        self.alive()

    def ask(self, ticket: str, scope: dict[str, Any], body: bytes) -> Iterator[Message]:
        status, kind, said = 200, b"application/json", [b"{}"]
        if scope["path"] == TEXT:
            self._asked += 1
            kind, said = b"text/event-stream", [b"data: 1\n\n", b"data: [DONE]\n\n"]
        elif scope["path"] == "/metrics":
            said = [(COUNTED % ((self._asked,) * 4)).encode()]
        elif scope["path"] == "/slots":
            said = [b'[{"id": 7}]']
        else:
            status = 404
        self._hangs |= b"hang" in body  # before anybody sees that it has begun
        yield {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}
        for part in said:
            yield {"type": "http.response.body", "body": part, "more_body": True}
            if b"wait" in body or self._hangs:
                GO_ON.wait(60)
        yield {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.fixture(autouse=True)
def going_on() -> Iterator[None]:
    GO_ON.clear()
    yield
    GO_ON.set()


@pytest.fixture
def machines() -> Iterator[Threads]:
    with Threads(2) as found:
        yield found
        GO_ON.set()


@pytest.fixture
def front(machines: Threads) -> Front:
    return Front([machines.make(Teller, on=i, at_once=8) for i in range(2)], {"model": "tiny"}, Limits())


async def messages(app: ASGIApp, path: str, body: Any = None, headers: tuple[Any, ...] = ()) -> AsyncIterator[Message]:
    """What answers a POST, or, without a body, a GET."""
    found: asyncio.Queue[Message | None] = asyncio.Queue()
    own = [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "path": path,
             "method": "GET" if body is None else "POST", "raw_path": path.encode(), "query_string": b"",
             "root_path": "", "headers": own, "client": None, "server": None}  # fmt: skip
    data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    parts = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive() -> Message:
        return next(parts, None) or await asyncio.Future()

    async def run() -> None:
        try:
            await app(scope, receive, found.put)
        finally:
            found.put_nowait(None)

    task = asyncio.ensure_future(run())
    while (message := await found.get()) is not None:
        yield message
    await task


async def asked(app: ASGIApp, path: str, body: Any = None, **more: Any) -> tuple[int, bytes]:
    found = [message async for message in messages(app, path, body, **more)]
    return found[0]["status"], b"".join(message.get("body", b"") for message in found)


async def health(app: ASGIApp) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await asked(app, "/health"))[1])
    return found


async def until_health(app: ASGIApp, number: int, state: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while (found := await health(app))["replicas"][number]["state"] != state:
            await asyncio.sleep(0.01)
    return found


async def begun(app: ASGIApp, front: Front, prompt: str) -> tuple[asyncio.Task[list[bytes]], Place]:
    """A stream whose first word was heard, and who answers it."""
    heard, first = list[bytes](), asyncio.Event()

    async def follow() -> list[bytes]:
        async for message in messages(app, TEXT, {"prompt": prompt}):
            heard.append(message.get("body", b""))
            if len(heard) > 1:
                first.set()
        return heard

    task = asyncio.ensure_future(follow())
    async with asyncio.timeout(60):
        await first.wait()
    return task, next(place for place in front._places.all if place.open)


@pytest.mark.parametrize("then", ["restart", "end"])
def test_a_replica_is_drained(front: Front, machines: Threads, then: str) -> None:
    app = Guard(front, Rules())

    async def run() -> None:
        task, place = await begun(app, front, "wait")
        before = machines.made[place.number]._made()
        status, body = await asked(app, f"/replicas/{place.number}/drain", {} if then == "restart" else {"then": then})
        assert status == 202
        assert json.loads(body) == {
            "replica": place.number, "machine": place.remote.where, "state": "draining", "there": True, "open": 1,
            "lost": 0,
        }  # fmt: skip
        assert (await health(app))["status"] == "degraded"
        other = front._places.all[1 - place.number]
        for _ in range(12):  # more than `SLACK` would send elsewhere
            assert (await asked(app, TEXT, {"prompt": "Once"}))[0] == 200
        assert (place.n_requests, other.n_requests) == (1, 12)
        assert machines.made[place.number]._made() is before
        GO_ON.set()
        assert (await task)[-2:] == [b"data: [DONE]\n\n", b""]
        found = await until_health(app, place.number, "ready" if then == "restart" else "ended")
        assert found["status"] == "ok"
        assert found["replicas"][place.number]["lost"] == 0
        if then == "restart":
            assert machines.made[place.number]._made() is not before
        else:
            assert (await asked(app, f"/replicas/{place.number}/drain", {}))[0] == 409
        assert (await asked(app, TEXT, {"prompt": "Once"}))[0] == 200

    asyncio.run(run())


def test_the_last_replica_is_drained(front: Front) -> None:
    async def run() -> None:
        for number in (0, 1):
            assert (await asked(Guard(front, Rules()), f"/replicas/{number}/drain", {"then": "end"}))[0] == 202
        await until_health(front, 1, "ended")
        assert await health(front) | {"replicas": 0} == {"status": "stopped", "replicas": 0}
        assert (await asked(Guard(front, Rules()), TEXT, {"prompt": "Once"}))[0] == 503

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/replicas/0/drain", {}, (), 401),
        ("/replicas/2/drain", {}, ((b"x-api-key", b"secret"),), 404),
        ("/replicas/0/drain", {"then": "stay"}, ((b"x-api-key", b"secret"),), 400),
        ("/replicas/0/drain", {"when": "now"}, ((b"x-api-key", b"secret"),), 400),
        ("/replicas/0/drain", b"[", ((b"x-api-key", b"secret"),), 400),
        ("/replicas/x/drain", {}, ((b"x-api-key", b"secret"),), 404),
        ("/replicas/0/drain", None, ((b"x-api-key", b"secret"),), 404),
    ],
)
def test_who_may_drain_what(front: Front, path: str, body: Any, headers: Any, status: int) -> None:
    app = Guard(front, Rules(keys=("secret",)))
    assert asyncio.run(asked(app, path, body, headers=headers))[0] == status
    assert all(place.there for place in front._places.all)


def test_a_replica_that_hangs_is_lost(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EVERY", 0.02)
    monkeypatch.setattr(places, "PATIENCE", 0.5)
    app = Guard(front, Rules())

    async def run() -> None:
        other, good = await begun(app, front, "wait")
        hung = front._places.all[1 - good.number]
        found = await asked(app, TEXT, {"prompt": "hang"})
        assert b"data: 1\n\n" in found[1]
        assert b"the replica that answered has ended; try again" in found[1]
        assert (await until_health(app, hung.number, "ready"))["replicas"][hung.number]["lost"] == 1
        assert not other.done()
        GO_ON.set()
        assert (await other)[-2:] == [b"data: [DONE]\n\n", b""]
        assert good.n_lost == 0

    asyncio.run(run())


def test_all_are_counted(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_server.replicas.everyone.SECONDS", 1.0)
    app = Guard(front, Rules())

    def values(text: bytes, name: str) -> dict[str, float]:
        families = text_string_to_metric_families(text.decode())
        samples = [sample for family in families for sample in family.samples]
        return {sample.labels["replica"]: sample.value for sample in samples if sample.name == name}

    async def run() -> None:
        for i in range(4):
            await asked(app, TEXT, {"prompt": str(i)})
        text = (await asked(app, "/metrics"))[1]
        assert text.count(b"# TYPE sis_requests_total counter") == 1
        counts = values(text, "sis_requests_total")
        assert sum(counts.values()) == 4
        assert counts == values(text, "sis_replica_requests_total") == values(text, "sis_gap_seconds_count")
        assert values(text, "sis_replica_ready") == {"0": 1, "1": 1}
        assert json.loads((await asked(app, "/slots"))[1]) == [{"replica": 0, "id": 7}, {"replica": 1, "id": 7}]
        assert (await asked(app, "/traces/unknown"))[0] == 404
        task, _ = await begun(app, front, "hang")  # the least busy is the first
        text = (await asked(app, "/metrics"))[1]
        assert set(values(text, "sis_requests_total")) == {"1"}
        assert values(text, "sis_replica_open") == {"0": 1, "1": 0}
        GO_ON.set()
        await task

    asyncio.run(run())


def test_families_of_several_replicas_stand_once() -> None:
    families = labelled({0: COUNTED % (1, 2, 3, 4), 2: COUNTED % (5, 6, 7, 8)})
    assert [family.name for family in families] == ["sis_requests", "sis_gap_seconds"]
    assert [(sample.labels["replica"], sample.value) for sample in families[0].samples] == [("0", 1), ("2", 5)]
    assert len(families[1].samples) == 8
