"""The limits of this process's control group on Linux: memory and processor time, of both versions."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc/self/cgroup")
FILES_V2 = ("memory.max", "memory.current")
FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
CPU_V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def free_memory() -> int | None:
    """Bytes that the group and those around it still allow, or None; pages of files that can be dropped are free."""
    found = []
    for group in _groups("memory"):
        for limit_file, used_file in (FILES_V2, FILES_V1):
            limit, used = _number(group / limit_file), _number(group / used_file)
            if limit is not None and used is not None:
                found.append(limit - max(0, used - _reclaimable(group)))
    return max(0, min(found)) if found else None


def cpu_quota() -> float | None:
    """Processors that the group may use at a time on average, such as 1.5; None without a quota."""
    quotas = []
    for group in _groups("cpu"):
        both = _text(group / "cpu.max").split() or [_text(group / name) for name in CPU_V1]
        if all(word.isdecimal() for word in both):  # else "max", or -1: none
            quotas.append(int(both[0]) / int(both[1]))
    return min(quotas, default=None)


def _groups(controller: str) -> list[Path]:
    """The folders of this process's group and of all groups around it."""
    folders: list[Path] = []
    for line in _text(PROC).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controller in controllers.split(","):
            root = ROOT if number == "0" else ROOT / controller
            own = root / path.lstrip("/")
            # In a container the path may be that of the host, where the group is mounted as the root.
            folders += [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return folders


def _reclaimable(group: Path) -> int:
    """Pages of files that the system drops first when memory is short."""
    lines = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines() if " " in line)
    return int(lines.get("total_inactive_file", lines.get("inactive_file", "0")))


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another system, or another version
        return ""
