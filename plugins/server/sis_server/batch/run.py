"""Runs the requests of a file beside each other, and writes their answers in its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from starlette.types import ASGIApp

from sis_core.source import Progress
from sis_server.batch.answers import answer, refused
from sis_server.batch.in_process import post
from sis_server.batch.lines import Line
from sis_server.batch.output import Output

AGAIN = 0.2  # seconds until a request is tried again that found the queue full


async def run(app: ASGIApp, lines: Iterator[Line], output: Output, *, at_once: int, told: Progress, total: int) -> None:
    """Answer each line, at most ``at_once`` on their way; ``told`` hears how many are done of ``total``."""
    running: deque[asyncio.Task[bytes]] = deque()
    try:
        while True:
            while len(running) < at_once and (line := next(lines, None)) is not None:
                running.append(asyncio.create_task(_answered(app, line)))
            if not running:
                return
            output.write(await running[0])
            running.popleft()
            told(output.n_done, total)
    finally:
        for task in running:
            task.cancel()


async def _answered(app: ASGIApp, line: Line) -> bytes:
    if line.error is not None:
        return refused(line, line.error)
    while True:
        status, body = await post(app, line.place, line.body)
        if status != 503:
            return answer(line, status, body)
        await asyncio.sleep(AGAIN)
