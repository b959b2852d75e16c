"""Several models by name: opened when they are asked for, closed when they are not, and replaced without a loss."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sis_server.catalogue import Catalogue
from sis_server.metrics import Metrics
from sis_server.models import Opener
from sis_server.served import Served

from sis_core import load
from sis_core.errors import MemoryLimitError, SourceError
from sis_core.texts.request import Piece
from sis_core.texts.scheduler import Scheduler

TEXT = "/v1/completions"


@pytest.fixture(scope="module")
def file() -> Path:
    with load(backend="stub") as model:
        return model.path


@pytest.fixture
def folder(tmp_path: Path, file: Path) -> Path:
    for name in ("goat", "hen"):
        shutil.copyfile(file, tmp_path / f"{name}.gguf")
    (tmp_path / "notes.txt").write_text("no model")
    return tmp_path


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def served(name: str, reference: str, metrics: Metrics) -> Served:
    model = load(reference, n_threads=1)
    made = Served(model, (name,), template="chatml", cache_tokens=4096, stall=0.08, queue_limit=64, metrics=metrics)
    made.engine.start()
    return made


@pytest.fixture
def opened() -> Iterator[list[Served]]:
    """What `opener` has opened; all is closed in the end."""
    found: list[Served] = []
    yield found
    assert all(each.model.closed and not each.engine.alive for each in found)


@pytest.fixture
def opener(opened: list[Served], metrics: Metrics) -> Opener:
    def opening(name: str, reference: str) -> Served:
        opened.append(served(name, reference, metrics))
        return opened[-1]

    return opening


@pytest.fixture
def steps(opened: list[Served], monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Cleared, the first model that was opened waits before its next step."""
    go = threading.Event()
    go.set()
    step = Scheduler.step

    def waiting(scheduler: Scheduler) -> list[Piece]:
        if scheduler.session.model is opened[0].model:
            go.wait(60)
        return step(scheduler)

    monkeypatch.setattr(Scheduler, "step", waiting)
    return go


def ask(client: Any, name: str | None, **more: Any) -> Any:
    body = {"prompt": "Once", "max_tokens": 2, "ignore_eos": True, **more}
    return client.post(TEXT, json=body | ({} if name is None else {"model": name}))


def is_open(client: Any) -> dict[str, bool]:
    return {model["id"]: model["open"] for model in client.get("/v1/models").json()["data"]}


class TestCatalogue:
    def test_folders_and_references_have_names(self, folder: Path) -> None:
        given = [str(folder), "mine=hf://user/repo", "tiny", f"{folder}/hen.gguf"]
        found = Catalogue.of(given).found()
        expected = {
            "mine": "hf://user/repo",
            "tiny": "tiny",
            "hen": f"{folder}/hen.gguf",
            "goat": f"{folder}/goat.gguf",
        }
        assert found == expected

    def test_split_files_are_one_model(self, tmp_path: Path) -> None:
        for no in (1, 2):
            (tmp_path / f"big-0000{no}-of-00002.gguf").touch()
        assert Catalogue.of([str(tmp_path)]).found() == {"big": f"{tmp_path}/big-00001-of-00002.gguf"}

    def test_files_come_and_go(self, folder: Path) -> None:
        catalogue = Catalogue.of([str(folder)])
        (folder / "goat.gguf").unlink()
        assert list(catalogue.found()) == ["hen"]
        shutil.rmtree(folder)
        assert catalogue.found() == {}

    @pytest.mark.parametrize("given", [["=x"], ["x="], [""], ["x=a", "x=b"]])
    def test_refusals(self, given: list[str]) -> None:
        with pytest.raises(SourceError, match="NAME=REFERENCE"):
            Catalogue.of(given)


def test_a_model_is_opened_by_its_first_request(
    shelf: Any, folder: Path, opener: Opener, opened: list[Served], metrics: Metrics
) -> None:
    with shelf(Catalogue.of([str(folder)]), opener, metrics=metrics) as (client, _):
        assert is_open(client) == {"goat": False, "hen": False}
        threads = [threading.Thread(target=ask, args=(client, "hen")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert is_open(client) == {"goat": False, "hen": True}
        assert ask(client, "hen").json()["model"] == "hen"
        assert len(opened) == 1
        assert ask(client, None).json()["model"] == "goat"  # the first
        assert len(opened) == 2
        assert client.get("/props", params={"model": "hen"}).json()["model"] == "hen"
        assert 'sis_requests_total{model="hen"} 5' in client.get("/metrics").text.replace(".0", "")


@pytest.mark.parametrize("name", ["cow", "", "../hen", "hen.gguf", "/etc/passwd", "notes"])
def test_a_name_that_is_not_offered_opens_nothing(
    shelf: Any, folder: Path, opener: Opener, opened: list[Served], name: str
) -> None:
    with shelf(Catalogue.of([str(folder)]), opener) as (client, _):
        answer = ask(client, name)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert not opened


def test_a_model_that_nobody_uses_is_closed(shelf: Any, folder: Path, opener: Opener, opened: list[Served]) -> None:
    with shelf(Catalogue.of([str(folder)]), opener, idle=0.05) as (client, _):
        assert ask(client, "hen").status_code == 200
        wait(lambda: not is_open(client)["hen"])
        wait(lambda: opened[0].model.closed)
        assert ask(client, "hen").status_code == 200
        assert len(opened) == 2


def test_a_stream_keeps_its_model_open(
    shelf: Any, folder: Path, opener: Opener, opened: list[Served], steps: threading.Event
) -> None:
    """A file that is replaced while a text of it is written: the text goes on, the next is the new file's."""
    with shelf(Catalogue.of([str(folder)]), opener, idle=0.01) as (client, _):
        body = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "model": "hen", "seed": 1, "stream": True}
        with client.stream("POST", TEXT, json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            steps.clear()
            replace(folder / "hen.gguf")
            assert ask(client, "hen").status_code == 200
            steps.set()
            assert len(opened) == 2
            assert not opened[0].model.closed
            rest = [line for line in (first, *lines) if line.startswith("data: {")]
        text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in rest)
        assert text == ask(client, "hen", max_tokens=400, seed=1).json()["choices"][0]["text"]
        wait(lambda: opened[0].model.closed)


def test_models_that_nobody_uses_make_room(
    shelf: Any, folder: Path, opener: Opener, opened: list[Served], steps: threading.Event
) -> None:
    """Memory for one model: the second takes the place of the first, but not of one that is in use."""

    def one_at_a_time(name: str, reference: str) -> Served:
        if any(not each.model.closed for each in opened):
            raise MemoryLimitError("needs more", where=reference)
        return opener(name, reference)

    with shelf(Catalogue.of([str(folder)]), one_at_a_time) as (client, _):
        body = {"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True, "model": "goat", "stream": True}
        with client.stream("POST", TEXT, json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            steps.clear()
            refused = ask(client, "hen")
            steps.set()
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert "memory" in refused.json()["error"]["message"]
        assert ask(client, "hen").status_code == 200
        assert is_open(client) == {"goat": False, "hen": True}


def test_a_file_that_is_no_model_is_told_without_its_path(shelf: Any, folder: Path, opener: Opener) -> None:
    (folder / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 60)
    with shelf(Catalogue.of([str(folder)]), opener) as (client, _):
        answer = ask(client, "bad")
        assert answer.status_code == 500
        assert str(folder) not in answer.text
        assert ask(client, "hen").status_code == 200


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    shutil.copyfile(path, other)
    os.replace(other, path)


def wait(true: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(3000):
        if true():
            return
        done.wait(0.01)
    raise AssertionError("did not become true")
