"""Limits of a control group, read from made-up folders of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sis_core.machine import cgroup, memory
from sis_core.machine import cores as threads


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "fs")
    monkeypatch.setattr(cgroup, "PROC", tmp_path / "proc")
    (tmp_path / "fs").mkdir()
    (tmp_path / "proc").write_text("0::/slice/unit\n")
    return tmp_path / "fs"


def test_without_groups_there_are_no_limits(root: Path) -> None:
    (root.parent / "proc").unlink()
    assert cgroup.free_memory() is None
    assert cgroup.cpu_quota() is None


def test_the_tightest_group_of_version_2_counts(root: Path) -> None:
    write(
        root / "slice",
        memory__max="1000",
        memory__current="900",
        memory__stat="anon 1\ninactive_file 300",
        cpu__max="max 100000",
    )
    write(root / "slice" / "unit", memory__max="5000", memory__current="100", cpu__max="150000 100000")
    assert cgroup.free_memory() == 400
    assert cgroup.cpu_quota() == 1.5
    write(root / "slice", cpu__max="50000 100000")
    assert cgroup.cpu_quota() == 0.5


def test_no_limit_is_no_number(root: Path) -> None:
    write(root / "slice" / "unit", memory__max="max", memory__current="100", cpu__max="max 100000")
    assert cgroup.free_memory() is None
    assert cgroup.cpu_quota() is None


def test_version_1(root: Path) -> None:
    (root.parent / "proc").write_text("9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/b\n0::/\n")
    write(root / "memory" / "a", memory__limit_in_bytes="700", memory__usage_in_bytes="650",
          memory__stat="inactive_file 7\ntotal_inactive_file 50")  # fmt: skip
    write(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(root / "cpu" / "b", cpu__cfs_quota_us="220000", cpu__cfs_period_us="100000")
    assert cgroup.free_memory() == 100
    assert cgroup.cpu_quota() == 2.2


def test_a_container_whose_group_is_mounted_as_the_root(root: Path) -> None:
    (root.parent / "proc").write_text("0::/docker/0123456789abcdef\n")
    write(root, memory__max="1000", memory__current="2000", cpu__max="300000 100000")
    assert cgroup.free_memory() == 0, "more is in use than is allowed"
    assert cgroup.cpu_quota() == 3


def test_free_memory_is_no_more_than_the_group_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 12345)
    assert memory.available_memory() == 12345
    monkeypatch.setattr(memory, "free_memory", lambda: 1 << 62)
    assert 1 << 20 < memory.available_memory() < 1 << 62


@pytest.mark.parametrize(("quota", "n_threads"), [(None, 4), (0.3, 1), (1.4, 1), (1.5, 2), (2.6, 3), (64.0, 4)])
def test_a_quota_is_rounded_to_threads(quota: float | None, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: [0, 2, 4, 6])
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.default_threads() == n_threads
    assert ("a quota of" in threads.describe_threads()) is (quota is not None)
