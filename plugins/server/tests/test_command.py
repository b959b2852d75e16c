"""``sis serve`` as a program: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
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


@pytest.mark.parametrize("other", ["no-such-folder", "mine=no-such-model.gguf", "x" * 5000])
def test_a_model_by_name_that_nobody_knows_is_refused_at_the_start(other: str) -> None:
    done = sis("--models", other, "--port", "0")
    assert isinstance(done.exception, SourceError)
    assert "no such folder or file" in str(done.exception)


def test_models_by_name_that_somebody_knows_are_not_opened_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr("sis_server.running.run", lambda models, *_: names.extend(asyncio.run(models.names())))
    monkeypatch.setattr("sis_server.command.load_model", None)
    done = sis(
        "--port",
        "0",
        "--models",
        "tiny",
        "--models",
        "far=hf://user/repository",
        "--models",
        str(Path(__file__).parent),
    )
    assert done.exit_code == 0, done.output
    assert names == ["tiny", "far"]


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


BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Once", "n": 16, "max_tokens": 900},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 900},
}


def test_an_error_at_the_start_is_a_line_of_the_log_too() -> None:
    started = [*SIS, "serve", "-m", "no-such-model.gguf", "--port", "0", "--log-json"]
    done = subprocess.run(started, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert any("no-such-model.gguf" in json.loads(line)["message"] for line in done.stderr.splitlines())


def test_what_has_not_ended_by_the_deadline_is_told_so() -> None:
    """Plain answers are 503, streams end with an error, each in its API's form; the log is JSON, without a failure."""
    started = [*SIS, "serve", "--port", "0", "--threads", "1", "--grace", "1", "--log-json"]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = None
        while address is None:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", json.loads(line)["message"])
        whole: dict[str, httpx.Response] = {}
        with httpx.Client(base_url=address[0], timeout=60) as client, contextlib.ExitStack() as open_streams:

            def ask(path: str) -> None:
                whole[path] = client.post(path, json=BODIES[path] | {"ignore_eos": True})

            streams = {}
            for path, body in BODIES.items():
                stream = client.stream("POST", path, json=body | {"ignore_eos": True, "stream": True})
                streams[path] = open_streams.enter_context(stream).iter_lines()
                next(streams[path])
            threads = [threading.Thread(target=ask, args=(path,), daemon=True) for path in BODIES]
            for thread in threads:
                thread.start()
            for _ in range(3000):
                if len(client.get("/slots").json()) == 2 * (16 + 1 + 1):
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            ends = {path: list(lines)[-2:] for path, lines in streams.items()}
            for thread in threads:
                thread.join(60)
        assert process.wait(30) == 0
        told = [json.loads(line) for line in process.stderr]
    for path in BODIES:
        assert whole[path].status_code == 503
        assert "retry-after" in whole[path].headers
        assert "shutting down" in whole[path].json()["error"]["message"]
        last = json.loads(ends[path][0].removeprefix("data: "))
        assert "shutting down" in last.get("error", last)["message"]
    assert whole["/v1/messages"].json()["error"]["type"] == "overloaded_error"
    assert not any("error" in line or "xception" in line["message"] for line in told)
    requests = [line["request"] for line in told if "request" in line and line["request"]["path"] in BODIES]
    assert len(requests) == 6
    assert any(text["reason"] is None for request in requests for text in request["texts"])
