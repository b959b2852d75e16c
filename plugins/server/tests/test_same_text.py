"""A seeded text is the same alone, in company, after a beginning that is known, and when it had to give way.

So it is where the numbers of a row do not depend on the rows beside it: with ``batch_invariant``, and without on
instructions below AMX.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

SIS = (sys.executable, "-m", "sis_core")
RUNG = "avx2" if platform.machine() in ("x86_64", "AMD64") else "neon"
PROMPT = "Once upon a time there was a hen who lived beside a goat. "
WIDE, TIGHT = 4096, 512
N = 160  # tokens of each text: three at once outgrow the tight cache


def body(text: str, seed: int) -> dict[str, Any]:
    return {"prompt": text, "seed": seed, "max_tokens": N, "temperature": 0.9, "ignore_eos": True}


def said(client: httpx.Client, *bodies: dict[str, Any]) -> list[str]:
    """The texts of requests that are sent together."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda each: client.post("/v1/completions", json=each).json(), bodies))
    return [answer["choices"][0]["text"] for answer in answers]


def check(wide: httpx.Client, tight: httpx.Client) -> None:
    asked = [body(PROMPT * 3 + name, seed) for seed, name in enumerate(("Hen", "Goat", "Cow"))]
    alone = [said(wide, each)[0] for each in asked]
    assert len(set(alone)) == 3
    assert said(wide, *asked, body("The sea", 7), body("x", 8))[:3] == alone
    answer = wide.post("/v1/completions", json=asked[0]).json()
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert answer["choices"][0]["text"] == alone[0]
    assert said(tight, *asked) == alone


def test_numbers_of_a_row_are_its_own(server: Any, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serve(cache_tokens=TIGHT) as tight, caplog.at_level(logging.INFO, "sis_core.texts.scheduler"):
        check(server.client, tight.client)
    assert "gives way" in caplog.text


@contextlib.contextmanager
def program(cache: int, log: Any) -> Iterator[httpx.Client]:
    """`sis serve` on a rung below AMX."""
    command = [*SIS, "-v", "serve", "--port", "0", "--threads", "2", "--cache", str(cache)]
    environment = os.environ | {"SIS_ISA": RUNG}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        try:
            with httpx.Client(base_url=found[0] if found else "", timeout=60) as client:
                yield client
        finally:
            process.terminate()
            log += process.stderr.readlines()


@pytest.mark.full
def test_instructions_below_amx() -> None:
    told: list[str] = []
    with program(WIDE, []) as wide, program(TIGHT, told) as tight:
        check(wide, tight)
    assert any("gives way" in line for line in told)
