"""A thousand streams, a third of them cut: none is lost, nothing is left, and memory stays as it is."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx2 as httpx
import psutil
import pytest

N, AT_ONCE, CUT = 1000, 64, 0.3
N_FIRST = 300  # until caches, pools and threads have the size that they keep
MIB = 1 << 20


async def stream(client: httpx.AsyncClient, number: int, stop_after: int | None) -> str | None:
    """The text of a stream; None for one that was cut after so many pieces."""
    body = {"prompt": f"Once there were {number} hens. ", "seed": number, "max_tokens": 24, "ignore_eos": True}
    text, n = "", 0
    async with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return text
            if line.startswith("data: "):
                text += json.loads(line[6:])["choices"][0]["text"]
                n += 1
                if n == stop_after:
                    return None
    raise AssertionError("the stream broke off")


async def streams(port: int, numbers: range) -> dict[int, str | None]:
    """Many, so many at a time."""
    draw, gate, found = random.Random(numbers.start), asyncio.Semaphore(AT_ONCE), dict[int, str | None]()
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:

        async def one(number: int, stop_after: int | None) -> None:
            async with gate:
                found[number] = await stream(client, number, stop_after)

        cuts = [draw.randint(1, 20) if draw.random() < CUT else None for _ in numbers]
        await asyncio.gather(*(one(number, cut) for number, cut in zip(numbers, cuts, strict=True)))
    return found


@pytest.mark.full
def test_a_thousand_streams(serve: Any) -> None:
    with serve(queue_limit=N, cache_tokens=8192) as server:
        engine, process = server.served.engine, psutil.Process()
        found = asyncio.run(streams(server.port, range(N_FIRST)))
        server.until(lambda: engine.n_open == 0)
        before = process.memory_info().rss
        found |= asyncio.run(streams(server.port, range(N_FIRST, N)))
        server.until(lambda: engine.n_open == 0)
        grown = process.memory_info().rss - before
        assert engine.n_running == 0
        assert server.client.get("/slots").json() == []
        n_cut = sum(text is None for text in found.values())
        assert len(found) == N
        assert 0.2 * N < n_cut < 0.4 * N
        assert engine.counts.requests == N
        assert engine.counts.failed == engine.counts.refused == 0
        assert engine.counts.cancelled <= n_cut
        assert grown < 32 * MIB
        body = {"seed": 0, "max_tokens": 24, "ignore_eos": True}
        kept = [number for number, text in found.items() if text is not None][:: N // 10]
        for number in kept:
            prompt = f"Once there were {number} hens. "
            alone = server.post("/v1/completions", body | {"prompt": prompt, "seed": number}).json()
            assert alone["choices"][0]["text"] == found[number]
