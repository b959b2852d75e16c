"""Joining a cluster: what is set, and what is refused. None of this needs Ray."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sis_ray import settings
from sis_ray.cluster import RayCluster
from sis_ray.host import Host

from sis_core.errors import PluginError, SourceError
from sis_core.registry import Registry


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    monkeypatch.setattr(settings, "default_token_file", lambda: tmp_path / "auth_token")
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_plugin_brings_a_cluster() -> None:
    assert Registry.load().get("clusters", "ray").name == "ray"


def test_a_cluster_here_has_a_token_that_is_in_no_file(tmp_path: Path) -> None:
    settings.prepare(here=True)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_has_set_stays() -> None:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1"}
    settings.prepare(here=False, address="10.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


def test_elsewhere_a_token_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no token: .*auth_token is not there"):
        settings.prepare(here=False, address="10.0.0.1:6379")
    (tmp_path / "auth_token").write_text("a" * 64)
    settings.prepare(here=False, address="10.0.0.1:6379")
    assert "RAY_AUTH_TOKEN" not in os.environ  # Ray reads it


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1:6379", True), ("localhost:1", True), ("ray://127.0.0.1:10001", True), ("10.0.0.1:6379", False),
     ("auto", False)],
)  # fmt: skip
def test_loopback(address: str, own: bool) -> None:
    assert settings.is_loopback(address) is own


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        os.environ["RAY_AUTH_TOKEN"] = "a" * 64
        with pytest.raises(SourceError, match=rf"Ray at {address}: nobody answers: .*ray start --head"):
            RayCluster().join(address)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PluginError, match=r"cluster ray: Ray is not installed\. `pip install 'sis-ray\[ray\]'`"):
        RayCluster().join()


def test_a_host_makes_its_object_once_and_tells_why_it_cannot() -> None:
    made: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            if not name:
                raise SourceError("has no name")
            made.append(name)

        def twice(self, n: int) -> int:
            return 2 * n

        def count(self, n: int) -> Iterator[int]:
            yield from range(n)

    host = Host(Thing, ("a",))
    assert made == []
    host.ready()
    assert host.call("twice", 4) == 8
    assert list(host.stream("count", 3)) == [0, 1, 2]
    assert made == ["a"]
    with pytest.raises(SourceError, match="has no name"):
        Host(Thing, ("",)).call("twice", 1)
