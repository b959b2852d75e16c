"""Clients that come when they come, whatever the server does, and what each of them saw."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

FIRST, GAP = 2.0, 0.2
"""Seconds: what a request must keep, to its first token and between two pieces of its reply."""


@dataclass
class Seen:
    """One request as its client saw it.

    Attributes:
        first: seconds to the first token; None when none came.
        gaps: seconds between pieces.
        done: whether the reply came to its end.
        error: what went wrong.
    """

    first: float | None = None
    gaps: list[float] = field(default_factory=list)
    done: bool = False
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether it was served as people want it."""
        return self.done and self.first is not None and self.first < FIRST and max(self.gaps, default=0.0) < GAP


async def request(client: httpx.AsyncClient, body: dict[str, Any], seen: Seen) -> None:
    """One request; what is seen is noted as it comes, so that a cut one is told as far as it came."""
    began = last = time.perf_counter()
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                seen.error = f"{answer.status_code}: {(await answer.aread())[:200].decode('utf-8', 'replace')}"
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    seen.done = True
                    return
                if not json.loads(line[6:])["choices"]:
                    continue
                now = time.perf_counter()
                if seen.first is None:
                    seen.first = now - began
                else:
                    seen.gaps.append(now - last)
                last = now
    except httpx.HTTPError as error:
        seen.error = f"{type(error).__name__}: {error}"


def body_of(prompt: list[int], n: int) -> dict[str, Any]:
    """A request for a reply of exactly ``n`` tokens, as both servers take it."""
    return {"prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True, "stream": True}


async def session(
    client: httpx.AsyncClient, prompts: Iterator[list[int]], n: int, found: list[Seen], until: float
) -> None:
    """The requests of one client, each when the one before is answered, but none after ``until``."""
    for prompt in prompts:
        if time.perf_counter() > until:
            return
        seen = Seen()
        found.append(seen)
        await request(client, body_of(prompt, n), seen)
        if not seen.done:
            return


async def arrivals(rate: float, seconds: float, seed: str) -> AsyncIterator[int]:
    """Numbers of clients as they arrive: a Poisson process of ``rate`` a second, the same for the same seed."""
    draw, began, at, number = random.Random(seed), time.perf_counter(), 0.0, 0
    while (at := at + draw.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        yield number
        number += 1


async def load(
    client: httpx.AsyncClient,
    prompts: Callable[[int], Iterator[list[int]]],
    *,
    rate: float,
    seconds: float,
    reply: int,
    seed: str,
) -> list[Seen]:
    """What the clients of one rate saw. Those that are not answered when a good reply would long be over are cut.

    Args:
        prompts: those of the client of a number.
        reply: tokens of a reply.
    """
    found: list[Seen] = []
    until = time.perf_counter() + seconds
    tasks = [
        asyncio.create_task(session(client, prompts(number), reply, found, until))
        async for number in arrivals(rate, seconds, seed)
    ]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=max(0.0, until - time.perf_counter()) + FIRST + reply * GAP)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found
