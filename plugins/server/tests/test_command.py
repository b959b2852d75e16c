"""``sis serve`` as a program: where it listens, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx2 as httpx
import pytest
from click.testing import CliRunner, Result
from sis_server.command import command

from sis_core.errors import SourceError

SIS = (sys.executable, "-c", "from sis_core.cli import main; main()")


def sis(*args: str) -> Result:
    return CliRunner().invoke(command, args)


def test_who_listens_for_others_asks_for_a_key() -> None:
    done = sis("--host", "0.0.0.0")
    assert done.exit_code == 2
    assert "--api-key" in done.output


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    assert sis("--api-key", key).exit_code == 2


def test_a_port_in_use_is_an_error_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = sis("-m", "no-such-model.gguf", "--port", str(taken.getsockname()[1]))
    assert isinstance(done.exception, SourceError)
    assert "cannot listen" in str(done.exception)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_replies(kind: signal.Signals) -> None:
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [*SIS, "serve", "--port", "0", "--threads", "1", "--alias", "tiny", "--api-key", "secret"]
    with subprocess.Popen(started, **options) as process:
        line = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        with httpx.Client(base_url=address[0], headers={"x-api-key": "secret"}, timeout=60) as client:
            body = {"prompt": "Once", "max_tokens": 64, "ignore_eos": True, "stream": True}
            with client.stream("POST", "/v1/completions", json=body) as answer:
                lines = answer.iter_lines()
                first = next(lines)
                process.send_signal(kind)
                rest = list(lines)
        assert first.startswith("data: ")
        assert "data: [DONE]" in rest
        assert process.wait(60) == 0
        assert "secret" not in line + process.stderr.read()


def test_an_error_at_the_start_is_a_line_of_the_log_too() -> None:
    started = [*SIS, "serve", "-m", "no-such-model.gguf", "--port", "0", "--log-json"]
    done = subprocess.run(started, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert any("no-such-model.gguf" in json.loads(line)["message"] for line in done.stderr.splitlines())


def test_what_has_not_ended_by_the_deadline_is_cut() -> None:
    """And the log is JSON, of a request that was cut too."""
    started = [*SIS, "serve", "--port", "0", "--threads", "1", "--grace", "1", "--log-json"]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = None
        while address is None:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", json.loads(line)["message"])
        body = {"prompt": "Once " * 40, "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 16}
        with (
            httpx.Client(base_url=address[0], timeout=60) as client,
            client.stream("POST", "/v1/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        told = [json.loads(line) for line in process.stderr if line.startswith("{")]
    (request,) = [line["request"] for line in told if "request" in line]
    assert request["path"] == "/v1/completions"
    assert any(text["reason"] is None for text in request["texts"])
