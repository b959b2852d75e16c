"""What every wheel and sdist must hold: metadata, licence, types, and the library of its machine."""

from __future__ import annotations

import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from pathlib import Path

import version

ELF_MACHINES = {62: "linux-x86_64", 183: "linux-aarch64"}
MACH_O_MACHINES = {0x01000007: "macos-x86_64", 0x0100000C: "macos-aarch64"}
PE_MACHINES = {0x8664: "windows-x86_64"}


def machine_of(library: bytes) -> str:
    """The target that a shared library is for, by the first fields of its format; "" where it is none that we build."""
    if library[:4] == b"\x7fELF":
        return ELF_MACHINES.get(struct.unpack_from("<H", library, 18)[0], "")
    if library[:4] == b"\xcf\xfa\xed\xfe":
        return MACH_O_MACHINES.get(struct.unpack_from("<I", library, 4)[0], "")
    if library[:2] == b"MZ":
        header = struct.unpack_from("<I", library, 0x3C)[0]
        return PE_MACHINES.get(struct.unpack_from("<H", library, header + 4)[0], "")
    return ""


def faults(out: Path, expected: Mapping[str, str | None]) -> list[str]:
    """What is wrong with the wheels and sdists in ``out``; ``expected`` names each wheel, with its library's target."""
    found = {path.name for path in out.glob("*.whl")}
    wrong = [f"{name} was not built" for name in sorted(expected.keys() - found)]
    wrong += [f"{name} must not be there" for name in sorted(found - expected.keys())]
    for name in sorted(found & expected.keys()):
        wrong += [f"{name}: {fault}" for fault in in_wheel(out / name, expected[name])]
    sdists = {"-".join(name.split("-")[:2]) for name in expected}
    for name in sorted(sdists):
        path = out / f"{name}.tar.gz"
        wrong += [f"{path.name}: {fault}" for fault in in_sdist(path, name)]
    return wrong


def in_wheel(path: Path, target: str | None) -> Iterator[str]:
    """What is wrong with one wheel."""
    name, number, *tag = path.name.removesuffix(".whl").split("-")
    with zipfile.ZipFile(path) as wheel:
        if (damaged := wheel.testzip()) is not None:
            yield f"{damaged} is damaged"
            return
        files = {entry: wheel.read(entry) for entry in wheel.namelist()}
    info = f"{name}-{number}.dist-info"
    metadata = BytesParser().parsebytes(files[f"{info}/METADATA"])
    if metadata["Version"] != number or number != version.read(version.ROOT):
        yield f"its version is {metadata['Version']}"
    if metadata["License-Expression"] != "MIT":
        yield "its metadata names no licence"
    if files.get(f"{info}/licenses/LICENSE") != (version.ROOT / "LICENSE").read_bytes():
        yield "it lacks the licence's text"
    if not metadata["Requires-Python"] or not metadata["Summary"] or not metadata.get_payload():
        yield "its metadata lacks the Python it needs, a summary or a description"
    for other in metadata.get_all("Requires-Dist", []):
        if other.startswith("sis-") and f"~={number.rpartition('.')[0]}.0" not in other:
            yield f"it asks for {other}"
    if f"Tag: {'-'.join(tag)}".encode() not in files[f"{info}/WHEEL"].splitlines():
        yield "its name and its WHEEL file have other tags"
    if f"{name}/py.typed" not in files:
        yield "it lacks py.typed"
    tops = {entry.partition("/")[0] for entry in files}
    if tops != {name, info}:
        yield f"it also holds {', '.join(sorted(tops - {name, info}))}"
    libraries = [entry for entry in files if entry.endswith((".so", ".dylib", ".dll"))]
    machines = [machine_of(files[entry]) for entry in libraries]
    if machines != ([target] if target else []):
        yield f"its libraries are for {machines or 'no machine'}, not {target or 'none'}"


def in_sdist(path: Path, name: str) -> Iterator[str]:
    """What is wrong with one sdist."""
    if not path.exists():
        yield "was not built"
        return
    with tarfile.open(path) as sdist:
        names = {entry.name.removeprefix(f"{name}/") for entry in sdist.getmembers() if entry.isfile()}
    for needed in ("LICENSE", "PKG-INFO", "README.md", "pyproject.toml"):
        if needed not in names:
            yield f"it lacks {needed}"
    libraries = [entry for entry in names if entry.endswith((".so", ".dylib", ".dll"))]
    if libraries:
        yield f"it holds a library: {', '.join(libraries)}"
