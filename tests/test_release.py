"""What a release is made with: one version for all packages, and wheels that are opened before anyone gets them."""

from __future__ import annotations

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of the programs, which stand beside each other."""
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    return __import__


def test_a_version_is_written_everywhere(part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    version = part("version")
    for path in version.projects(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    before = {path: path.read_text("utf-8") for path in version.projects(tmp_path)}
    old, major_minor = version.read(tmp_path), version.read(tmp_path).rpartition(".")[0]
    changed = version.write(tmp_path, "7.8.9")
    assert {*version.packages(tmp_path)} <= {path.parent for path in changed}
    for path in version.projects(tmp_path):
        text = path.read_text("utf-8")
        assert f"~={major_minor}.0" not in text
        back = text.replace('version = "7.8.9"', f'version = "{old}"').replace("~=7.8.0", f"~={major_minor}.0")
        assert back == before[path], "nothing else changes"
    assert version.write(tmp_path, "7.8.9") == []


@pytest.mark.parametrize("text", ["1.2", "1.2.3rc1", "v1.2.3", "", "1.2.3.4"])
def test_a_version_of_another_form_is_refused(text: str, part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not of the form 1\.2\.3"):
        part("version").write(tmp_path, text)


def test_what_a_wheel_lacks_is_said(part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    contents, number = part("contents"), part("version").read(ROOT)
    metadata = (
        f"Metadata-Version: 2.4\nName: sis-a\nVersion: {number}\nSummary: A.\nLicense-Expression: MIT\n"
        f"Requires-Python: >=3.11\nRequires-Dist: sis-core~={number.rpartition('.')[0]}.0\n\nText.\n"
    )
    info, tag = f"sis_a-{number}.dist-info", "py3-none-manylinux_2_17_x86_64"
    elf = b"\x7fELF" + bytes(14) + struct.pack("<H", 62) + bytes(44)
    whole = {
        "sis_a/py.typed": b"", "sis_a/libsis.so": elf, f"{info}/METADATA": metadata.encode(),
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(), f"{info}/WHEEL": f"Tag: {tag}\n".encode(),
    }  # fmt: skip

    def faults(**changes: bytes | None) -> list[str]:
        path = tmp_path / f"sis_a-{number}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in {**whole, **changes}.items():
                if data is not None:
                    wheel.writestr(name, data)
        return list(contents.in_wheel(path, "linux-x86_64"))

    assert faults() == []
    assert faults(**{f"{info}/licenses/LICENSE": None}) == ["it lacks the licence's text"]
    assert faults(**{"sis_a/py.typed": None}) == ["it lacks py.typed"]
    assert faults(**{"sis_a/libsis.so": None}) == ["its libraries are for no machine, not linux-x86_64"]
    foreign = elf[:18] + struct.pack("<H", 183) + elf[20:]
    assert faults(**{"sis_a/libsis.so": foreign}) == ["its libraries are for ['linux-aarch64'], not linux-x86_64"]
    assert faults(**{"tests/test_a.py": b""}) == ["it also holds tests"]
    assert faults(**{f"{info}/WHEEL": b"Tag: py3-none-any\n"}) == ["its name and its WHEEL file have other tags"]
    old = metadata.replace(f"Version: {number}\nS", "Version: 0.0.1\nS").replace("~=", "==").encode()
    assert faults(**{f"{info}/METADATA": old}) == [
        "its version is 0.0.1", f"it asks for sis-core=={number.rpartition('.')[0]}.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("library", "machine"),
    [
        (b"\x7fELF" + bytes(14) + struct.pack("<H", 183), "linux-aarch64"),
        (b"\x7fELF" + bytes(14) + struct.pack("<H", 3), ""),
        (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C), "macos-aarch64"),
        (b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664), "windows-x86_64"),
        (b"!<arch>\n", ""),
    ],
)
def test_the_machine_of_a_library(library: bytes, machine: str, part: Callable[[str], ModuleType]) -> None:
    assert part("contents").machine_of(library) == machine


def test_a_wheel_too_many_or_too_few_is_said(part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (tmp_path / "sis_neon-1.0.0-py3-none-any.whl").write_bytes(b"")
    found = part("contents").faults(tmp_path, {"sis_neon-1.0.0-py3-none-manylinux_2_17_aarch64.whl": "linux-aarch64"})
    assert found == [
        "sis_neon-1.0.0-py3-none-manylinux_2_17_aarch64.whl was not built",
        "sis_neon-1.0.0-py3-none-any.whl must not be there",
        "sis_neon-1.0.0.tar.gz: was not built",
    ]
