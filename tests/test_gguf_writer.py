"""The writer: what it writes is what the reader reads, and a file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_cases import gguf, strings, tensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sis_core.errors import GGUFError, SisError, SourceError
from sis_core.gguf_file import TENSOR_TYPES, Array, GGUFFile
from sis_core.gguf_file.tables import VALUE_TYPES
from sis_core.gguf_file.writer import OWN_KEYS, GGUFWriter

ONE_DIRECTORY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def copy(file: GGUFFile, path: Path) -> None:
    """Writes all that `file` has to `path`."""
    writer = GGUFWriter(path, file.metadata, types=file.metadata_types, alignment=file.alignment)
    for info in file.tensors.values():
        chunks = [file.raw(info.name)]
        writer.add_tensor(info.name, info.shape, info.type_name, chunks, n_bytes=info.n_bytes, package=info.package)
    writer.write()


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, Array) else value


# What is written is what is read.

INTS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
SCALARS = {
    **{name: st.integers(-(2 ** (n - 1)), 2 ** (n - 1) - 1) for name, n in INTS.items()},
    **{f"u{name}": st.integers(0, 2**n - 1) for name, n in INTS.items()},
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
}
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda key: not OWN_KEYS.fullmatch(key)
)
TYPED = st.one_of(
    [st.tuples(st.just(name), values) for name, values in SCALARS.items()]
    + [st.tuples(st.just(f"array[{name}]"), st.lists(values)) for name, values in SCALARS.items()]
    + [
        st.tuples(st.just("string"), st.text(st.characters(exclude_categories=["Cs"]))),
        st.tuples(st.just("array[string]"), st.lists(st.binary(max_size=300))),
    ]
)


def test_the_strategies_have_every_type() -> None:
    assert set(SCALARS) | {"string"} == {type.name for type in VALUE_TYPES.values()}


@ONE_DIRECTORY
@given(metadata=st.dictionaries(KEYS, TYPED, max_size=8))
def test_metadata_round_trip(metadata: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    values = {key: value for key, (_, value) in metadata.items()}
    types = {key: type for key, (type, _) in metadata.items()}
    GGUFWriter(tmp_path / "a", values, types=types).write()
    with GGUFFile.open(tmp_path / "a") as first:
        assert {key: plain(value) for key, value in first.metadata.items()} == values
        assert first.metadata_types == types
        copy(first, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[tuple[int, ...], str, bytes, str]:
    if draw(st.integers(0, 3)) == 0:
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
        n_bytes = draw(st.integers(-(-int(np.prod(shape)) // 64), 200))
        return shape, draw(st.sampled_from(["XQ2", "my.format", "type 99"])), draw(data(n_bytes)), "sis-xq2"
    type = draw(st.sampled_from(list(TENSOR_TYPES.values())))
    rows = draw(st.lists(st.integers(1, 3), max_size=3))
    shape = (*rows, type.block_size * draw(st.integers(1, 3)))
    return shape, type.name, draw(data(type.n_bytes(int(np.prod(shape))))), ""


def cut(raw: bytes, panel: int) -> Iterator[bytes]:
    return (raw[i : i + panel] for i in range(0, len(raw), panel))


def data(n: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=16).map(lambda seed: (seed * n)[:n])


@ONE_DIRECTORY
@given(
    many=st.dictionaries(st.text("abc.", min_size=1, max_size=8), tensors(), max_size=5),
    alignment=st.sampled_from([8, 32, 256]),
    panel=st.integers(1, 50),
)
def test_tensor_round_trip(many: dict[str, Any], alignment: int, panel: int, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a", {"k": 1}, alignment=alignment)
    for name, (shape, type, raw, package) in many.items():
        writer.add_tensor(name, shape, type, cut(raw, panel), n_bytes=len(raw), package=package)
    writer.write()
    with GGUFFile.open(tmp_path / "a") as file:
        assert list(file.tensors) == list(many)
        for name, (shape, type, raw, package) in many.items():
            info = file.tensors[name]
            assert (info.shape, info.type_name) == (shape, type)
            assert info.package == (package if info.type_id is None else "")
            assert file.raw(name).tobytes()[: len(raw)] == raw
            assert info.n_bytes == len(raw) or type == "type 99"  # which ends where the next begins
        copy(file, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("value", "type"),
    [
        (1, "uint32"),
        (-1, "int32"),
        (2**32, "uint64"),
        (-(2**32), "int64"),
        (1.5, "float32"),
        (True, "bool"),
        ("x", "string"),
        ([1, -2], "array[int32]"),
        ([2**31], "array[int64]"),
        ([2**63], "array[uint64]"),
        ([1, 2.5], "array[float32]"),
        ([True], "array[bool]"),
        (["x", b"\xff"], "array[string]"),
        (("x",), "array[string]"),
        (np.float64(2.5), "float64"),
        (np.arange(3, dtype=np.uint16), "array[uint16]"),
        (np.array([True]), "array[bool]"),
        (np.zeros(0, np.int8), "array[int8]"),
    ],
)
def test_types_of_python_values(value: Any, type: str, tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "m", {"k": value}).write()
    with GGUFFile.open(tmp_path / "m") as file:
        assert file.metadata_types["k"] == type
        expected = [text.encode() if isinstance(text, str) else text for text in value] if "[" in type else value
        assert plain(file.metadata["k"]) == expected


def test_an_array_can_change_its_type(tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "a", {"k": [1, 2]}).write()
    with GGUFFile.open(tmp_path / "a") as file:
        GGUFWriter(tmp_path / "b", file.metadata, types={"k": "array[uint8]"}).write()
    with GGUFFile.open(tmp_path / "b") as file:
        assert (plain(file.metadata["k"]), file.metadata_types["k"]) == ([1, 2], "array[uint8]")


def test_what_a_copied_file_said_about_itself_is_left_out(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"general.alignment": 64, "split.count": 3, "sis.tensor.names": ["gone"], "k": 1}
    GGUFWriter(tmp_path / "m", metadata).write()
    with GGUFFile.open(tmp_path / "m") as file:
        assert dict(file.metadata) == {"k": 1}


def test_several_formats_without_an_id(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m", {})
    writer.add_tensor("a", (2, 64), "XQ2", [bytes(36)], n_bytes=36, package="sis-xq2")
    writer.add_tensor("b", (3,), "F32", [np.arange(3, dtype="<f4")])
    writer.add_tensor("c", (3, 7), "odd", [bytes(10)], n_bytes=10)
    writer.write()
    with GGUFFile.open(tmp_path / "m") as file:
        assert [(i.type_name, i.package, i.shape) for i in file.tensors.values()] == [
            ("XQ2", "sis-xq2", (2, 64)),
            ("F32", "", (3,)),
            ("odd", "", (3, 7)),
        ]
    reader = pytest.importorskip("gguf").GGUFReader(tmp_path / "m")
    listed = [(tensor.name, tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors]
    assert listed == [("a", "I8", [18, 2]), ("b", "F32", [3]), ("c", "I8", [10])]


def test_the_gguf_package_reads_it(tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    weights = np.arange(96, dtype="<f4").reshape(3, 32)
    writer = GGUFWriter(tmp_path / "m", {"general.architecture": "llama", "n": 3, "words": ["a", "ü"], "x": [0.5]})
    writer.add_tensor("w", weights.shape, "F32", [weights])
    writer.add_tensor(
        "q", weights.shape, "Q8_0", iter(package.quants.quantize(weights, package.GGMLQuantizationType.Q8_0))
    )
    writer.write()
    reader = package.GGUFReader(tmp_path / "m")
    fields = {key: reader.fields[key].contents() for key in ("general.architecture", "n", "words", "x")}
    assert fields == {"general.architecture": "llama", "n": 3, "words": ["a", "ü"], "x": [0.5]}
    assert reader.tensors[0].data.tolist() == weights.tolist()
    assert reader.tensors[1].data.shape == (3, 34)


def test_chunks_of_any_kind(tmp_path: Path) -> None:
    matrix = np.arange(8, dtype="<f4").reshape(2, 4)
    writer = GGUFWriter(tmp_path / "m", {})
    chunks: list[Any] = [
        b"",
        matrix[:0],
        matrix.T,
        memoryview(b"1234"),
        bytearray(b"5678"),
        matrix[:1],
        np.zeros((2,), "<f4"),
    ]
    writer.add_tensor("t", (16,), "F32", chunks)  # 32 + 4 + 4 + 16 + 8 bytes
    writer.write()
    with GGUFFile.open(tmp_path / "m") as file:
        expected = matrix.T.tobytes() + b"12345678" + matrix[0].tobytes() + bytes(8)
        assert file.raw("t").tobytes() == expected


def test_chunks_are_asked_for_one_by_one(tmp_path: Path) -> None:
    alive = []

    def panels() -> Iterator[bytes]:
        for i in range(3):
            alive.append(i)
            (hidden,) = tmp_path.iterdir()
            assert hidden.name.startswith(".sis-")
            yield bytes(64)

    writer = GGUFWriter(tmp_path / "m", {})
    writer.add_tensor("t", (48,), "F32", panels())
    assert not alive
    writer.write()
    assert alive == [0, 1, 2]


# What is refused, with nothing left behind.


def refusal(path: Path, kind: type[SisError] = GGUFError, **tensor: Any) -> str:
    before = list(path.parent.iterdir())
    with pytest.raises(kind) as caught:
        write_one(path, **tensor)
    assert list(path.parent.iterdir()) == before
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.fix
    return str(caught.value)


def write_one(
    path: Path,
    *,
    metadata: Any = None,
    types: Any = None,
    alignment: int = 32,
    n_bytes: int | None = None,
    **changes: Any,
) -> None:
    tensor: dict[str, Any] = {"name": "t", "shape": (2, 32), "type": "F32", "chunks": [bytes(256)]}
    writer = GGUFWriter(path, metadata or {}, types=types, alignment=alignment)
    writer.add_tensor(**{**tensor, **changes}, n_bytes=n_bytes)
    writer.write()


REFUSALS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "too few bytes": ({"chunks": [bytes(100), bytes(100)]}, ("tensor 't'", "256 bytes", "have 200")),
    "too many bytes": ({"chunks": [bytes(257)]}, ("tensor 't'", "256 bytes", "have more")),
    "wrong length": ({"n_bytes": 128}, ("tensor 't'", "256 bytes in F32", "not 128")),
    "no length": ({"type": "XQ2"}, ("tensor 't'", "'XQ2'", "n_bytes")),
    "negative length": ({"type": 99, "n_bytes": -1}, ("tensor 't'", "in format 99 needs its length")),
    "no data": ({"type": 99, "n_bytes": 0, "chunks": []}, ("tensor data begin at byte", "the file ends at")),
    "ragged row": ({"type": "Q4_0", "shape": (2, 33), "chunks": [bytes(36)]}, ("rows of 33", "multiple of 32")),
    "removed type": ({"type": 4, "n_bytes": 256}, ("type 4 (Q4_2)", "removed")),
    "five dimensions": ({"shape": (1, 1, 1, 2, 32)}, ("5 dimensions",)),
    "zero dimension": ({"shape": (0, 32), "chunks": []}, ("0 elements in dimension 1",)),
    "negative dimension": ({"shape": (-2, -32)}, ("(-2, -32)", "cannot be written")),
    "long name": ({"name": "n" * 64}, ("64 bytes", "63")),
    "no name": ({"name": ""}, ("tensor 0 has no name",)),
    "name is not text": ({"name": "\ud800"}, ("cannot be written", "surrogates")),
    "type id too large": ({"type": 2**32, "n_bytes": 256}, ("4294967296", "cannot be written")),
    "bad format name": ({"type": "a b", "n_bytes": 256}, ("'a b'", "name of its format")),
    "bad package": ({"type": "XQ2", "n_bytes": 256, "package": "a b"}, ("'a b'", "name of its package")),
    "alignment": ({"alignment": 13}, ("alignment 13", "power of 2")),
    "alignment 0": ({"alignment": 0}, ("alignment 0",)),
    "empty list": ({"metadata": {"k": []}}, ("key 'k'", "empty list", "`types`")),
    "none": ({"metadata": {"k": None}}, ("key 'k'",)),
    "mixed": ({"metadata": {"k": [1, "x"]}}, ("key 'k'", "int and str")),
    "nested": ({"metadata": {"k": [[1]]}}, ("key 'k'", "list")),
    "does not fit": ({"metadata": {"k": 300}, "types": {"k": "uint8"}}, ("key 'k'", "as uint8", "255")),
    "too large": ({"metadata": {"k": 2**64}}, ("key 'k'",)),
    "float too large": ({"metadata": {"k": 1e300}}, ("key 'k'", "too large")),
    "not a bool": ({"metadata": {"k": 1}, "types": {"k": "bool"}}, ("key 'k'", "as bool")),
    "bool for a number": ({"metadata": {"k": True}, "types": {"k": "uint8"}}, ("key 'k'", "as uint8")),
    "no such type": ({"metadata": {"k": 1}, "types": {"k": "int128"}}, ("key 'k'", "no type 'int128'")),
    "numpy type": ({"metadata": {"k": np.zeros(1, np.complex64)}}, ("key 'k'", "no type 'complex64'")),
    "empty key": ({"metadata": {"": 1}}, ("key 0 has an empty name",)),
    "bytes that are not text": ({"metadata": {"k": b"\xff"}}, ("key 'k'", "not UTF-8")),
}


@pytest.mark.parametrize(("given", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(given: dict[str, Any], says: tuple[str, ...], tmp_path: Path) -> None:
    text = refusal(tmp_path / "m", **given)
    for words in says:
        assert words in text


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m", {})
    for _ in range(2):
        writer.add_tensor("t", (1,), "F32", [bytes(4)])
    with pytest.raises(GGUFError, match="two tensors are named 't'"):
        writer.write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_nothing_half_written_stays(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"as it was")

    def chunks() -> Iterator[bytes]:
        yield bytes(100)
        raise error

    with pytest.raises(error):
        write_one(path, chunks=chunks())
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"as it was"]


def test_an_old_file_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(gguf([strings("words", ["x"])], [tensor("t", [32])], b"x" * 128))
    with GGUFFile.open(path) as file:
        copy(file, path)
        assert file.raw("t").tobytes() == b"x" * 128
    with GGUFFile.open(path) as file:
        assert plain(file.metadata["words"]) == [b"x"]


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be written"):
        write_one(tmp_path / "none" / "m")


def test_target_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert "cannot be written" in refusal(tmp_path / "m", SourceError)


def test_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: FREE)
    assert "the disk has 100 left" in refusal(tmp_path / "m", SourceError)


def test_disk_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left on device" in refusal(tmp_path / "m", SourceError)


class FREE:
    free = 100
