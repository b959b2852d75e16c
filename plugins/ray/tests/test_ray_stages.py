"""Layers on several nodes: the text of one process, whatever is killed in the middle of it."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

pytestmark = pytest.mark.full


def test_a_node_is_killed_in_the_middle_of_a_text(nodes: Any) -> None:
    asked = ("generate", "Once upon a time", "-n", "400", "--seed", "3", "--ctx", "512", "-t", "1", "--batch-invariant",
             "--ignore-end")  # fmt: skip
    expected = nodes.run(*asked)
    nodes.environment["RAY_ADDRESS"] = nodes.address
    process = nodes.start("-v", *asked, "--stages", "3")
    found = os.read(process.stdout.fileno(), 40).decode()  # the text has begun; nothing stays in a buffer
    nodes.kill(1)
    rest, said = process.communicate(timeout=nodes.seconds)
    assert process.returncode == 0, said
    assert found + rest == expected
    assert "tokens are computed again" in said
    assert "Traceback" not in said


def test_what_a_hop_costs(nodes: Any, record_property: Any) -> None:
    """No assertion on time: the figures are for people."""
    asked = ("generate", "Once upon a time", "-n", "100", "--seed", "3", "--ctx", "256", "-t", "1")
    nodes.environment["RAY_ADDRESS"] = nodes.address
    began = time.perf_counter()
    assert nodes.run(*asked, "--stages", "2") == nodes.run(*asked)
    record_property("seconds", time.perf_counter() - began)
