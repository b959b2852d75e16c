"""Runs the requests of a file beside each other, and gives their answers in its order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp

from sis_server.batch.answers import answer, refused
from sis_server.batch.in_process import post
from sis_server.batch.lines import Line

AGAIN = 0.2  # seconds until a request is tried again that found no room
PATIENCE = 60.0  # seconds after which that is its answer: the room may never come


async def answers(app: ASGIApp, lines: Iterator[Line], *, at_once: int, told: Callable[[bytes], None]) -> None:
    """Answer each line, at most ``at_once`` on their way; ``told`` hears of each answer in its turn."""
    running: deque[asyncio.Task[bytes]] = deque()
    try:
        while True:
            while len(running) < at_once and (line := next(lines, None)) is not None:
                running.append(asyncio.create_task(_answered(app, line)))
            if not running:
                return
            told(await running[0])
            running.popleft()
    finally:
        for task in running:
            task.cancel()


async def _answered(app: ASGIApp, line: Line) -> bytes:
    if line.error is not None:
        return refused(line, line.error)
    until = time.monotonic() + PATIENCE
    while True:
        status, body = await post(app, line.place, line.body)
        if status != 503 or time.monotonic() >= until:
            return answer(line, status, body)
        await asyncio.sleep(AGAIN)
