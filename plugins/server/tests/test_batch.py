"""``sis batch``: the same bytes whenever and however often it runs, and whatever ended it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sis_server.batch import run
from sis_server.batch.counts import Counts
from sis_server.batch.in_process import post
from sis_server.batch.lines import check_lines, read_lines
from sis_server.batch.mending import Mending
from sis_server.batch.output import Output
from sis_server.errors import ApiError
from starlette.applications import Starlette

from sis_core.cli.main import group
from sis_core.errors import SourceError

CHAT, TEXT, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def line(custom_id: str, url: str, body: Any, **others: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body, **others}) + "\n"


def requests(n: int = 6) -> str:
    says = [{"role": "user", "content": "a short story about a fox and a ring"}]
    made = [line(f"chat-{i}", CHAT, {"model": "gpt", "messages": says, "max_tokens": 5}) for i in range(n)]
    made += [line(f"text-{i}", TEXT, {"prompt": "Once upon", "max_tokens": 4 + i, "n": 2}) for i in range(n)]
    return "".join([*made, line("bad", CHAT, {"messages": []}), line("v", VECTORS, {"input": ["a", "b"]})])


def batch(folder: Path, answers: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, answers, *more), capture_output=True, text=True, check=False, timeout=100)


def command(folder: Path, answers: str, *more: str) -> list[str]:
    files = [str(folder / "in.jsonl"), str(folder / answers)]
    return [sys.executable, "-m", "sis_core", "batch", *files, "-t", "1", "--ctx", "128", *more]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with requests, and the bytes of their answers."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "in.jsonl").write_text(requests())
    done = batch(folder, "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert "13 of 14 requests were answered, and 1 failed (400: 1). The first, 'bad': " in done.stderr
    return folder, (folder / "out.jsonl").read_bytes()


def test_answers_stand_in_the_order_of_the_requests(answered: tuple[Path, bytes]) -> None:
    folder, data = answered
    head, *found = map(json.loads, data.splitlines())
    assert head["object"] == "sis.batch"
    asked = [json.loads(text) for text in (folder / "in.jsonl").read_text().splitlines()]
    assert [each["custom_id"] for each in found] == [each["custom_id"] for each in asked]
    by_id = {each["custom_id"]: each for each in found}
    chat = by_id["chat-0"]["response"]
    assert (chat["status_code"], chat["body"]["object"], chat["body"]["created"]) == (200, "chat.completion", 0)
    assert chat["body"]["usage"]["completion_tokens"] == 5
    texts = [by_id[f"chat-{i}"]["response"]["body"]["choices"][0]["message"]["content"] for i in range(6)]
    assert len(set(texts)) > 1  # a seed of its own for each
    assert [choice["index"] for choice in by_id["text-0"]["response"]["body"]["choices"]] == [0, 1]
    assert len(by_id["v"]["response"]["body"]["data"]) == 2
    assert by_id["bad"]["response"]["status_code"] == 400
    assert by_id["bad"]["error"]["code"] == "invalid_request_error"
    assert all(each["error"] is None for name, each in by_id.items() if name != "bad")


def test_a_file_that_was_cut_anywhere_is_gone_on_with(answered: tuple[Path, bytes]) -> None:
    folder, data = answered
    draw = random.Random(3)
    for cut in (9, draw.randrange(20, len(data))):
        (folder / "cut.jsonl").write_bytes(data[:cut])
        done = batch(folder, "cut.jsonl")
        assert done.returncode == 0, done.stderr
        assert (folder / "cut.jsonl").read_bytes() == data, cut


def test_a_run_beside_another_is_refused(answered: tuple[Path, bytes]) -> None:
    folder, data = answered
    path = folder / "locked.jsonl"
    path.write_bytes(data[: len(data) // 2])
    holds = "from sis_server.batch.output import Output; import pathlib, sys; held = Output(pathlib.Path(sys.argv[1]))"
    program = [sys.executable, "-c", f"{holds}; print(flush=True); input()", str(path)]
    holder = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    done = batch(folder, path.name)
    assert done.returncode == 1
    assert "locked.jsonl: is being written by another process" in done.stderr
    assert path.read_bytes() == data[: len(data) // 2]
    holder.kill()  # the system frees what it held
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with Output(path) as output, pytest.raises(SourceError, match="another process"):
        Output(path)
    assert output.begun["object"] == "sis.batch"


def test_going_on_otherwise_is_refused(answered: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, data = answered
    path = folder / "otherwise.jsonl"
    path.write_bytes(b"".join(data.splitlines(True)[:3]))
    before = path.read_bytes()
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    changed = ["--kv-type", "q8_0", "--context", "shift", "--template", str(tmp_path / "t.jinja"), "--cache", "100"]
    message = "was begun with kv_type 'f16', and this is with kv_type 'q8_0'. Give --kv-type as it was given then"
    with pytest.raises(SourceError, match=message):
        CliRunner().invoke(group, command(folder, path.name, *changed)[3:], catch_exceptions=False)
    assert path.read_bytes() == before
    (tmp_path / "in.jsonl").touch()
    assert CliRunner().invoke(group, command(tmp_path, "none.jsonl", *changed)[3:]).exit_code == 0
    now = settings((tmp_path / "none.jsonl").read_bytes())
    differ = {key for key, value in settings(data).items() if now.get(key) != value} | (now.keys() - settings(data))
    assert differ == {"kv_type", "context", "template", "cache"}
    assert not {"threads", "n_threads", "speculate", "at_once"} & now.keys()


def test_what_failed_here_is_tried_again(answered: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, data = answered
    answers, path, n = data.splitlines(True)[1:], folder / "again.jsonl", 0

    async def failing(app: Any, place: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal n
        n += 1
        if n in (2, 3, 9):
            return 500, ApiError(500, "the disk is on fire").openai()
        return await post(app, place, body)

    monkeypatch.setattr(run, "post", failing)
    arguments = command(folder, path.name)[3:]
    first = CliRunner().invoke(group, arguments)
    assert first.exit_code == 1, first.stderr
    assert "10 of 14 requests were answered, and 4 failed (400: 1, 500: 3)" in first.stderr
    assert "The first, 'chat-1': the disk is on fire" in first.stderr
    assert "3 failed here: the same command tries them again" in first.stderr
    monkeypatch.undo()
    left = path.read_bytes().splitlines(True)
    assert [i for i, (was, now) in enumerate(zip(answers, left[1:], strict=True)) if was != now] == [1, 2, 8]
    path.write_bytes(b"".join(left)[: -len(left[-1]) - 5])  # and two were not answered yet
    arguments[arguments.index("--ctx") : arguments.index("--ctx") + 2] = []  # as it was begun
    second = CliRunner().invoke(group, arguments)
    assert second.exit_code == 0, second.stderr
    assert "3 of them failed here, and are tried again" in second.stderr
    assert path.read_bytes() == data


def test_room_that_never_comes_is_waited_for_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def full(app: Any, place: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal tries
        tries += 1
        return 503, ApiError(503, "no memory").openai()

    monkeypatch.setattr(run, "post", full)
    monkeypatch.setattr(run, "AGAIN", 0.01)
    monkeypatch.setattr(run, "PATIENCE", 0.05)
    (tmp_path / "in.jsonl").write_text(line("a", TEXT, {"prompt": "x"}))
    found: list[bytes] = []
    asyncio.run(run.answers(Starlette(), read_lines(tmp_path / "in.jsonl"), at_once=1, told=found.append))
    counts = Counts()
    counts.add(found[0])
    assert (counts.again, dict(counts.by_status)) == ([0], {503: 1})
    assert tries > 1


def test_what_is_tried_again_in_vain_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(before := b"heading\na\nb\nc\nd\n")

    def in_vain() -> None:
        with Mending(path, [0, 2]) as mending:
            mending.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_vain()
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["out.jsonl"])
    with Mending(path, [0, 2]) as mending:
        mending.write(b"new")
        mending.write(b"newer")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"heading\nnew\nb\nnewer\nd\n", ["out.jsonl"])


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(requests(2))
    (tmp_path / "marked.jsonl").write_text(requests(2), "utf-8-sig")
    assert list(read_lines(tmp_path / "marked.jsonl")) == list(read_lines(tmp_path / "in.jsonl"))


@pytest.mark.full
def test_killed_ten_times(answered: tuple[Path, bytes]) -> None:
    folder, data = answered
    draw, killed, path = random.Random(5), 0, folder / "killed.jsonl"
    while killed < 10:
        before = path.stat().st_size if path.exists() else -1
        process = subprocess.Popen(command(folder, path.name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (path.stat().st_size if path.exists() else -1) <= before:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        elif path.read_bytes() == data:
            path.unlink()  # it was done before: again from the start
    assert batch(folder, path.name).returncode == 0
    assert path.read_bytes() == data


def test_an_interrupt_leaves_what_was_answered(answered: tuple[Path, bytes]) -> None:
    folder, data = answered
    path = folder / "interrupted.jsonl"
    process = subprocess.Popen(command(folder, path.name, "--at-once", "1"), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > 1):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (130, 0), said
    assert "Traceback" not in said
    assert data.startswith(path.read_bytes())


REFUSED: dict[str, tuple[Callable[[str], str], str]] = {
    "an id that stands twice": (lambda text: text + text.splitlines()[0], "'chat-0' stands twice: requests 1 and 15"),
    "no id": (lambda text: text + '{"url": "/v1/completions", "body": {}}', "line 15: has no custom_id"),
    "no JSON": (lambda text: text + "{", "line 15: is no request"),
    "no object": (lambda text: "[]", "line 1: is no request"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_start(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    (tmp_path / "in.jsonl").write_text(change(requests()))
    with pytest.raises(SourceError, match=message):
        check_lines(tmp_path / "in.jsonl")


def test_lines_that_fail_alone(tmp_path: Path) -> None:
    bad = [
        ("x", {"url": "/v1/unheard"}), ("y", {"method": "GET"}), ("z", {"body": []}), ("s", {"body": {"stream": True}}),
        ("u", {"unheard": 1}),
    ]  # fmt: skip
    text = "".join(line(name, TEXT, {"prompt": "a"}, **changes) if "url" not in changes and "body" not in changes and
                   "method" not in changes else json.dumps({"custom_id": name, "url": TEXT, "body": {"prompt": "a"}} |
                   changes) + "\n" for name, changes in bad)  # fmt: skip
    (tmp_path / "in.jsonl").write_text(text + line("good", TEXT, {"prompt": "a", "max_tokens": 1}))
    done = batch(tmp_path, "out.jsonl")
    assert done.returncode == 0, done.stderr  # they were answered as well as they can be
    assert "1 of 6 requests were answered, and 5 failed (400: 5)" in done.stderr
    found = [json.loads(each) for each in (tmp_path / "out.jsonl").read_text().splitlines()[1:]]
    assert [each["response"]["status_code"] for each in found] == [400] * 5 + [200]


def settings(data: bytes) -> dict[str, str]:
    """Of a file of answers."""
    found: dict[str, str] = json.loads(data.splitlines()[0])
    del found["object"]
    return found


OTHERS = {
    "another file": (lambda data: b'{"an": "other file"}\n', "is no file of answers"),
    "a text": (lambda data: b"some text", "is no file of answers"),
    "another model": (lambda data: data.replace(b'"model":"', b'"model":"0', 1), "was begun with model"),
    "other instructions": (
        lambda data: data.replace(b'"instructions":"', b'"instructions":"0', 1),
        "was begun with instructions",
    ),
    "other requests": (
        lambda data: data.replace(b'"id":"batch_req_', b'"id":"batch_req_0', 1),
        "holds answers to other requests",
    ),
    "another kind of cache": (
        lambda data: data.replace(b'"kv_type":"f16"', b'"kv_type":"q4_0"', 1),
        "was begun with kv_type 'q4_0', and this is with kv_type 'f16'. Give --kv-type as it was given then",
    ),
    "another context": (lambda data: data.replace(b'"n_ctx":"128"', b'"n_ctx":"64"', 1), "with n_ctx '64'.*--ctx"),
    "no record of it": (lambda data: data.replace(b',"n_ctx":"128"', b"", 1), "was begun without n_ctx"),
    "a short cache": (lambda data: data.replace(b',"n_ctx"', b',"cache":"9","n_ctx"', 1), "and this is without cache"),
    "another numpy": (lambda data: data.replace(b'"numpy":"', b'"numpy":"0', 1), "was begun with numpy '0"),
    "another sis": (lambda data: data.replace(b'"sis-core ', b'"sis-core 0', 1), "with plugin core 'sis-core 0"),
    "a damaged answer": (lambda data: data.replace(b'"status_code":200', b'"status_code":x00', 1), "line 2 is damaged"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_answers_to_something_else_are_not_touched(name: str, answered: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, data = answered
    change, message = OTHERS[name]
    path, content = tmp_path / "out.jsonl", change(data)
    path.write_bytes(content)

    def go_on() -> None:
        with Output(path) as output:
            output.begin(settings(data))
            output.check(read_lines(folder / "in.jsonl"))

    with pytest.raises(SourceError, match=message):
        go_on()
    assert path.read_bytes() == content


def test_a_disk_that_fills_up_leaves_what_was_answered(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits of file sizes")
    path, before = tmp_path / "out.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    with Output(path) as output:
        output.begin({})
        output.write(b"x" * 50)
        kept = path.read_bytes()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
            with pytest.raises(SourceError, match="cannot be written: File too large"):
                output.write(b"y" * 500)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Output(path) as output:
        output.begin({})
        assert output.n_done == 1
    assert path.read_bytes() == kept
