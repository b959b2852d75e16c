"""Clients that leave, wait, dawdle or talk nonsense, by raw sockets."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sis_server.receiving import Limits

TEXT = "/v1/completions"
LONG = {"prompt": "Once upon a time", "max_tokens": 100_000, "ignore_eos": True}
TALK = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
BODIES: dict[str, dict[str, Any]] = {
    TEXT: {"prompt": "Once", "max_tokens": 1},
    "/v1/chat/completions": TALK,
    "/v1/responses": {"input": "Hello", "max_output_tokens": 1},
    "/v1/messages": TALK,
}


def request(path: str, body: dict[str, Any], *headers: str) -> bytes:
    data = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data


def answer(connection: Any) -> bytes:
    """All that comes until the server closes."""
    data = bytearray()
    while part := connection.recv(65536):
        data += part
    return bytes(data)


def idle(server: Any) -> bool:
    return server.served.engine.n_open == 0 and server.served.engine.n_running == 0


@pytest.fixture(scope="module")
def full(serve: Any) -> Iterator[Any]:
    """A server that lets nobody in, and whose queue has one request, as many as it may."""
    with serve(queue_limit=1) as server, pytest.MonkeyPatch.context() as patch:
        go, engine = threading.Event(), server.served.engine
        step = engine._scheduler.step

        def late() -> Any:
            go.wait(60)
            return step()

        patch.setattr(engine._scheduler, "step", late)
        ticket = engine.submit(server.served.model.request("Once"), lambda piece: None)
        yield server
        engine.cancel(ticket)
        go.set()


def test_a_client_that_leaves_a_stream_ends_its_text(server: Any) -> None:
    before = server.served.engine.counts.cancelled
    with server.socket() as connection:
        connection.sendall(request(TEXT, {**LONG, "stream": True}))
        got = b""
        while b"data:" not in got:
            got += connection.recv(65536)
    server.until(lambda: idle(server))
    assert server.served.engine.counts.cancelled == before + 1
    assert server.client.get("/slots").json() == []


def test_a_client_that_leaves_before_its_answer_ends_its_text(server: Any) -> None:
    before = server.served.engine.counts.cancelled
    with server.socket() as connection:
        connection.sendall(request(TEXT, LONG))
        server.until(lambda: server.served.engine.n_running == 1)
    server.until(lambda: idle(server))
    assert server.served.engine.counts.cancelled == before + 1


def test_when_too_many_wait_the_next_is_told_to_come_back(serve: Any) -> None:
    with serve(queue_limit=2, cache_tokens=256) as server:
        connections = [server.socket() for _ in range(40)]
        try:
            for connection in connections:
                connection.sendall(request(TEXT, {**LONG, "prompt": "Once upon a time " * 20}))
            refused: list[bytes] = []

            def hear() -> int:
                for connection in select.select(connections, [], [], 0.1)[0]:
                    data = connection.recv(65536)
                    if data.startswith(b"HTTP/1.1 503"):
                        refused.append(data.lower())
                return len(refused)

            server.until(lambda: hear() >= 20)
            assert all(b"\r\nretry-after: " in data for data in refused)
            assert server.served.engine.counts.refused >= 20
        finally:
            for connection in connections:
                connection.close()
        # what was sent before the end may still be read, and take a place until it is found to be gone
        server.until(lambda: server.post(TEXT, {"prompt": "Once", "max_tokens": 1}).status_code == 200)
        server.until(lambda: idle(server))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_a_full_queue_is_told_in_every_api_before_an_answer_begins(full: Any, path: str, stream: bool) -> None:
    answer = full.post(path, {**BODIES[path], "stream": stream})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "requests are waiting already" in answer.json()["error"]["message"]


def test_the_texts_of_one_request_are_one_in_the_queue(serve: Any) -> None:
    with serve(queue_limit=1, cache_tokens=256) as server:
        hens = [f"{i} hens" for i in range(4)]
        answer = server.post(TEXT, {"prompt": hens, "n": 2, "max_tokens": 1})
        assert (answer.status_code, len(answer.json()["choices"])) == (200, 8)
        answer = server.post("/v1/embeddings", {"input": hens})
        assert (answer.status_code, len(answer.json()["data"])) == (200, 4)
        answer = server.post(
            TEXT, {"prompt": "Once upon a time " * 12, "n": 3, "max_tokens": 1}
        )  # two follow the first
        assert (answer.status_code, len(answer.json()["choices"])) == (200, 3)
        assert server.served.engine.n_waiting == server.served.engine.counts.refused == 0


def test_of_many_texts_of_one_request_some_are_put_in_at_a_time(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_server.following.AT_ONCE", 3)
    submit, most = server.served.engine.submit, 0

    def counted(*args: Any) -> Any:
        nonlocal most
        ticket = submit(*args)
        most = max(most, server.served.engine.n_open)
        return ticket

    monkeypatch.setattr(server.served.engine, "submit", counted)
    long = "Once upon a time " * 12  # its second text follows the first
    body = {"prompt": ["One", long, "Three", "Four"], "n": 2, "max_tokens": 2, "ignore_eos": True}
    answer = server.post(TEXT, body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 16
    assert most == 3


def test_what_comes_too_slowly_is_cut_off(serve: Any) -> None:
    with serve(limits=Limits(seconds=0.3)) as server:
        with server.socket() as connection:  # headers that do not end
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            assert answer(connection) == b""
        with server.socket() as connection:  # nothing at all
            assert answer(connection) == b""
        with server.socket() as connection:  # a body that does not end
            connection.sendall(request(TEXT, LONG)[:-5])
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
        with server.socket() as connection:  # the second request of a connection
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /health HTTP/1.1\r\nHost")
            assert answer(connection) in (b"", b'{"status":"ok"}')


def test_a_reply_may_take_longer_than_a_request(serve: Any) -> None:
    with serve(limits=Limits(seconds=0.2)) as server:
        seconds = 0.0
        n = 1
        while seconds < 0.4:
            reply = server.post(TEXT, {"prompt": ["Once"] * n, "max_tokens": 200, "ignore_eos": True})
            assert reply.status_code == 200
            assert reply.json()["usage"]["completion_tokens"] == 200 * n
            seconds, n = reply.elapsed.total_seconds(), n * 2


def test_bytes_that_are_not_http_are_refused(server: Any) -> None:
    cases = (
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000,
        b"GET /" + b"x" * 100_000,
    )
    for case in cases:
        with server.socket() as connection:
            connection.sendall(case)
            assert answer(connection).startswith(b"HTTP/1.1 4"), case[:60]
    assert server.client.get("/health").status_code == 200


def test_many_streams_share_one_engine(server: Any) -> None:
    """40 at once, every third cut: those that stay say what they say alone, and nothing is left."""
    body = {"max_tokens": 24, "temperature": 0.9, "ignore_eos": True}
    prompts = [f"Once upon a time there were {i} hens." for i in range(40)]
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        with server.socket() as connection:
            connection.sendall(request(TEXT, {**body, "prompt": prompts[i], "seed": i}, "Connection: close"))
            if i % 3 == 0:
                return
            texts[i] = json.loads(answer(connection).partition(b"\r\n\r\n")[2])["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    server.until(lambda: idle(server))
    assert sorted(texts) == [i for i in range(40) if i % 3]
    for i in (1, 20, 38):
        alone = server.post(TEXT, {**body, "prompt": prompts[i], "seed": i}).json()
        assert alone["choices"][0]["text"] == texts[i]
