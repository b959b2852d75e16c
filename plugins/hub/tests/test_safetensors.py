"""The header of a safetensors file: the twelve refusals, and what else no such file can be."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sis_hub.convert.safetensors import SafetensorsFile

from sis_core.errors import SourceError

A = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
B = {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]}


def file_of(path: Path, header: Any, data: bytes = bytes(24), *, n: int | None = None) -> Path:
    """A file with this header, which may be text or bytes that are no JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if n is None else n) + raw + data)
    return path


def both(**changes: Any) -> dict[str, Any]:
    return {"__metadata__": {"format": "pt"}, "a": A, "b": B | changes}


def test_a_sound_file(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes() + np.arange(4, dtype="<f2").tobytes()
    file = SafetensorsFile(file_of(tmp_path / "m.safetensors", both(), data))
    assert list(file.tensors) == ["a", "b"]
    assert file.raw("a").view("<f4").tolist() == [0, 1, 2, 3]
    assert file.raw("b").view("<f2").tolist() == [0, 1, 2, 3]


HEADERS: list[tuple[str, Callable[[Path], Path], str]] = [
    ("longer than the file", lambda p: file_of(p, both(), n=10_000), "states a header of 10000 bytes, but the file"),
    ("over 100 MB", lambda p: file_of(p, both(), n=100_000_001), "at most 100000000 are allowed"),
    ("no brace", lambda p: file_of(p, b'[{"a": 1}]'), "starts with .*not with a brace"),
    ("not UTF-8", lambda p: file_of(p, b'{"\xff": 1}'), "not UTF-8 at its byte 2"),
    ("not JSON", lambda p: file_of(p, b'{"a": '), "not JSON"),
    ("duplicate names", lambda p: file_of(p, b'{"a": %s, "a": %s}' % ((json.dumps(A).encode(),) * 2)), "'a' twice"),
    ("overlap", lambda p: file_of(p, both(data_offsets=[8, 16]), bytes(16)), "overlap: 'a' and 'b'"),
    ("a hole", lambda p: file_of(p, both(data_offsets=[20, 28]), bytes(28)), "a hole of 4 bytes between"),
    ("wrong offsets", lambda p: file_of(p, both(data_offsets=[16, 20])), r"\(4,\) in F16, which does not take 4 bytes"),
    ("overflow", lambda p: file_of(p, both(shape=[2**40, 2**40])), "more than 2"),
    ("unknown dtype", lambda p: file_of(p, both(dtype="F13")), "unknown dtype 'F13'"),
    ("no values", lambda p: file_of(p, both(shape=[0], data_offsets=[16, 16]), bytes(16)), "without a value"),
]


@pytest.mark.parametrize(("make", "said"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_the_twelve_refusals(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    assert len(HEADERS) == 12
    with pytest.raises(SourceError, match=rf"m\.safetensors: this safetensors file .*{said}.*[Dd]ownload it again"):
        SafetensorsFile(make(tmp_path / "m.safetensors"))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (both(shape="x"), "with a shape that is not a list"),
        (both(shape=[4.0]), "with a shape that is not a list"),
        (both(shape=[True, 4]), "with a shape that is not a list"),
        (both(shape=[-4]), "with a shape that is not a list"),
        (both(shape=[1] * 9), "with a shape that is not a list"),
        (both(data_offsets=[24, 16]), "not a begin and an end"),
        (both(data_offsets=[16]), "not a begin and an end"),
        (both(more=1), "without just a dtype, a shape and data_offsets"),
        ({"a": 3}, "without just a dtype"),
        ({"b": B}, "a hole before tensor 'b'"),
        ({"a": A}, "has 8 bytes after the last tensor"),
        ({"a": A, "b": {**B, "dtype": "F64", "data_offsets": [16, 48]}}, "has tensors up to byte"),
        ({"a": A, "b": {**B, "dtype": ["F16"]}}, "unknown dtype"),
    ],
)
def test_other_refusals(tmp_path: Path, header: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        SafetensorsFile(file_of(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize("data", [b"", b"\x01", bytes(7), bytes(8)])
def test_too_short(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(SourceError):
        SafetensorsFile(tmp_path / "m.safetensors")


def test_deep_json(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not JSON"):
        SafetensorsFile(file_of(tmp_path / "m.safetensors", b'{"a":' * 100_000))
    with pytest.raises(SourceError, match="not JSON"):
        SafetensorsFile(file_of(tmp_path / "m.safetensors", b'{"a": ' + b"9" * 10_000 + b"}"))


def test_a_file_that_changes_is_not_read_on(tmp_path: Path) -> None:
    file = SafetensorsFile(file_of(tmp_path / "m.safetensors", both()))
    file.path.write_bytes(file.path.read_bytes()[:-8])
    with pytest.raises(SourceError, match="changed while it was read"):
        file.raw("b")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 170), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(tmp_path: Path, place: int, byte: int) -> None:
    path = file_of(tmp_path / "m.safetensors", both())
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    try:
        file = SafetensorsFile(path)
    except SourceError:
        return
    for name, entry in file.tensors.items():
        assert len(file.raw(name)) == entry.n_bytes
