"""Shards over several machines: order, what is lost, and what is to blame."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from sis_server.alike import start_alike
from sis_server.batch import shards
from sis_server.batch.lines import Line, read_lines
from sis_server.batch.output import Output
from sis_server.batch.shards import run_shards
from sis_server.batch.worker import Worker
from sis_server.errors import ApiError

from sis_core.errors import BackendError, LostError, SisError, SourceError
from sis_core.loading.options import LoadOptions
from sis_core.loading.recipe import Recipe
from sis_core.registry import Registry
from sis_core.source import Preset, resolve
from sis_core.testing.machines import ThreadRemote, Threads

KNOWN = {"model": "m"}


class Echo:
    """Answers with the ids; some requests end it, and it may be one of another kind when it comes back."""

    lives = 0

    def __init__(self, deadly: Sequence[str] = (), changed: bool = False) -> None:
        Echo.lives += 1
        self._deadly, self._model = deadly, f"m{Echo.lives}" if changed else "m"

    def identity(self) -> dict[str, str]:
        return {"model": self._model}

    def answer(self, lines: Sequence[Line]) -> list[bytes]:
        if any(line.custom_id in self._deadly for line in lines):
            raise SystemExit
        return [line.custom_id.encode() for line in lines]


def lines(n: int) -> Iterator[Line]:
    return (Line(str(i), f"{i:064}", error=ApiError(400, "no") if i == 7 else None) for i in range(n))


def run(workers: Sequence[ThreadRemote], n: int, size: int) -> list[bytes]:
    found: list[bytes] = []
    run_shards(workers, KNOWN, lines(n), size=size, told=found.append)
    return found


@pytest.mark.parametrize(("n", "size"), [(0, 1), (1, 4), (8, 1), (50, 3), (50, 64)])
def test_answers_come_in_the_order_of_the_requests(n: int, size: int) -> None:
    with Threads(3) as machines:
        found = run([machines.make(Echo, on=i) for i in range(3)], n, size)
    assert [each for i, each in enumerate(found) if i != 7] == [str(i).encode() for i in range(n) if i != 7]
    assert len(found) == n
    assert n <= 7 or json.loads(found[7])["response"]["status_code"] == 400


def test_machines_that_are_lost_change_nothing() -> None:
    draw, over = random.Random(4), threading.Event()
    with Threads(3) as machines:
        workers = [machines.make(Echo, on=i) for i in range(3)]

        def losing() -> None:
            for _ in range(40):
                draw.choice(workers).lose()
                over.wait(0.002)

        thread = threading.Thread(target=losing)
        thread.start()
        found = run(workers, 400, 5)
        thread.join()
    own = [each for i, each in enumerate(found) if i != 7]
    blamed = [each for each in own if each.startswith(b"{")]
    assert len(blamed) <= 1  # three losses over one request by chance: none in most runs
    assert [each for each in own if each not in blamed] == [
        str(i).encode() for i in range(400) if i != 7 and not found[i].startswith(b"{")
    ]


@pytest.mark.parametrize("size", [1, 6, 40])
def test_a_request_that_ends_machines_is_reported_once(size: int) -> None:
    with Threads(2) as machines:
        workers = [machines.make(Echo, ("11", "12"), on=i) for i in range(2)]
        found = run(workers, 30, size)
    for i, each in enumerate(found):
        if i in (11, 12):
            said = json.loads(each)
            assert (said["custom_id"], said["response"]["status_code"]) == (str(i), 500)
            assert "3 machines ended over this request" in said["error"]["message"]
        elif i != 7:
            assert each == str(i).encode()


def test_who_comes_back_as_another_is_refused() -> None:
    with Threads(1) as machines:
        workers = [machines.make(Echo, ("3",), True)]
        with pytest.raises(BackendError, match=r"machine 0: model is 'm[0-9]+', and on this job 'm'"):
            run(workers, 6, 1)


def test_no_machine_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: ThreadRemote, seconds: float) -> None:
        raise LostError("is not there", where=self.where)

    monkeypatch.setattr(ThreadRemote, "wait", never)
    found: list[bytes] = []
    with Threads(2) as machines:
        workers = [machines.make(Echo, ("20",), on=i) for i in range(2)]
        with pytest.raises(LostError, match=r"is not there\. The same command goes on from here"):
            run_shards(workers, KNOWN, lines(30), size=4, told=found.append)
    assert found[:7] == [str(i).encode() for i in range(7)]


def test_an_interrupt_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(answer: bytes) -> None:
        raise KeyboardInterrupt

    with Threads(2) as machines:
        workers = [machines.make(Echo, on=i) for i in range(2)]
        with pytest.raises(KeyboardInterrupt):
            run_shards(workers, KNOWN, lines(1000), size=1, told=interrupted)
    assert sum(worker.n_calls for worker in machines.made) <= 2 * shards.AHEAD * 2


def recipe(**options: Any) -> Recipe:
    registry = Registry.load()
    path = resolve(None, registry.records("sources"))
    chosen = LoadOptions(n_ctx=128, n_threads=1, batch_invariant=True, **options)
    return Recipe.of(path, chosen, Preset(), registry)


def answered(folder: Path, name: str, n: int) -> bytes:
    """The file of answers by ``n`` machines, one of which is lost on the way."""
    with Threads(n) as machines:
        workers, identity = start_alike(machines, n, Worker, recipe(), None, None, 2)
        with Output(folder / name) as output:
            output.begin(workers[0].call("heading").result())
            found = read_lines(folder / "in.jsonl")
            output.check(found)

            def told(answer: bytes) -> None:
                output.write(answer)
                if output.n_done == 2 and n > 1:
                    machines.made[1].lose()

            run_shards(workers, identity, found, size=2, told=told)
    return (folder / name).read_bytes()


def test_several_machines_give_the_bytes_of_one(tmp_path: Path) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 3}
    asked = [{"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body} for i in range(9)]
    asked[4]["body"] = {}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    one = answered(tmp_path, "one.jsonl", 1)
    assert len({json.loads(each)["response"]["body"]["choices"][0]["text"] for i, each in enumerate(one.splitlines())
                if i not in (0, 5)}) > 1  # fmt: skip
    assert answered(tmp_path, "two.jsonl", 2) == one
    (tmp_path / "cut.jsonl").write_bytes(one[: len(one) // 2])
    assert answered(tmp_path, "cut.jsonl", 2) == one


def test_machines_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Threads(2) as machines:
        workers = [machines.make(Echo), machines.make(Echo, (), True, on=1)]
        monkeypatch.setattr(machines, "make", lambda *_, on, at_once: workers[on])
        with pytest.raises(BackendError, match=r"machine 1: model is 'm[0-9]+', and on machine 0 'm'\. Copy one file"):
            start_alike(machines, 2, Echo)


def test_a_machine_without_the_file_is_named() -> None:
    lacking = attrs.evolve(recipe(), path=Path(os.sep, "nowhere", "model.gguf"))
    with Threads(1) as machines, pytest.raises(SourceError, match=r"machine 0: .*model\.gguf"):
        start_alike(machines, 1, Worker, lacking, None, None, 1)


def test_errors_travel() -> None:
    import pickle

    for error in (SisError("a", where="b", fix="c"), LostError("x"), SourceError("y", where="z")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.what, again.where, again.fix) == (type(error), error.what, error.where, error.fix)
