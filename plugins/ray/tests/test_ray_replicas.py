"""Replicas on several nodes: one is killed in the middle of a stream."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import httpx2 as httpx
import pytest

pytestmark = pytest.mark.full


def until(client: httpx.Client, seconds: float, status: str) -> dict[str, Any]:
    """What `/health` says, as soon as it says this."""
    end = time.monotonic() + seconds
    while True:
        try:
            found: dict[str, Any] = client.get("/health").json()
            if found["status"] == status:
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "the server did not become so"
        time.sleep(0.1)


def test_a_replica_is_killed_in_mid_stream(nodes: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes.environment["RAY_ADDRESS"] = nodes.address
    server = nodes.start("serve", "--ray", "3", "--port", port, "--ctx", "1024", "-t", "1")
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=nodes.seconds)
    until(client, nodes.seconds, "ok")
    found: list[list[Any]] = [[], [], []]
    begun = [threading.Event() for _ in found]

    def follow(i: int) -> None:
        body = {"prompt": f"{i}: Once", "max_tokens": 900, "stream": True, "ignore_eos": True, "seed": i}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    begun[i].set()
                    found[i].append(line.removeprefix("data: "))

    threads = [threading.Thread(target=follow, args=(i,)) for i in range(3)]
    for thread, event in zip(threads, begun, strict=True):
        thread.start()
        assert event.wait(nodes.seconds)
    assert [each["open"] for each in client.get("/health").json()["replicas"]] == [1, 1, 1]
    nodes.kill(2)
    for thread in threads:
        thread.join(nodes.seconds)
    lasts = sorted(each[-1] == "[DONE]" for each in found)
    assert lasts == [False, True, True]
    (lost,) = [each for each in found if each[-1] != "[DONE]"]
    assert json.loads(lost[-1])["error"] == {
        "message": "the replica that answered has ended; try again", "type": "server_error", "param": None, "code": None
    }  # fmt: skip
    replicas = until(client, nodes.seconds, "ok")["replicas"]  # back, on another node
    assert sorted(each["lost"] for each in replicas) == [0, 0, 1]
    answer = client.post("/v1/completions", json={"prompt": "Once", "max_tokens": 3})
    assert answer.status_code == 200

    told = client.post("/replicas/1/drain", json={})
    assert told.status_code == 202
    replicas = until(client, nodes.seconds, "ok")["replicas"]  # made again, and lost by nobody
    assert sorted(each["lost"] for each in replicas) == [0, 0, 1]
    assert client.post("/replicas/2/drain", json={"then": "end"}).status_code == 202
    assert client.post("/v1/completions", json={"prompt": "Once", "max_tokens": 3}).status_code == 200
    server.terminate()
    _, said = server.communicate(timeout=nodes.seconds)
    assert "Traceback" not in said
    client.close()
