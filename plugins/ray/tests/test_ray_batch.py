"""A batch over three nodes: the bytes of one machine, whatever is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full
SECONDS = 240  # until a test gives up


def write_requests(path: Path, n: int) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 60}
    asked = [{"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body} for i in range(n)]
    asked[n // 2]["body"] = {"prompt": []}
    path.write_text("".join(json.dumps(each) + "\n" for each in asked))


def answers(path: Path) -> int:
    """In a file so far; one line is its heading."""
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def until(path: Path, n: int) -> None:
    """Until a file has so many answers."""
    end = time.monotonic() + SECONDS
    while answers(path) < n:
        assert time.monotonic() < end, f"no answers came after {answers(path)}"
        time.sleep(0.02)


def test_nodes_and_drivers_are_killed(nodes: Any, tmp_path: Path) -> None:
    requests = tmp_path / "in.jsonl"
    write_requests(requests, 240)
    load = ("--ctx", "128", "-t", "1", "--at-once", "4")
    nodes.run("batch", requests, tmp_path / "one.jsonl", *load)
    expected = (tmp_path / "one.jsonl").read_bytes()
    path = tmp_path / "three.jsonl"
    again = ("batch", requests, path, *load, "--ray", nodes.address)

    driver = nodes.start(*again)
    until(path, 3)
    driver.kill()
    driver.communicate()
    assert expected.startswith(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])

    driver = nodes.start(*again)
    until(path, answers(path) + 1)  # it goes on
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 130, said
    assert expected.startswith(path.read_bytes())

    driver = nodes.start(*again)
    until(path, answers(path) + 1)
    nodes.kill(1)
    until(path, answers(path) + 20)
    nodes.add()
    nodes.kill(2)
    _, said = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, said
    assert path.read_bytes() == expected
