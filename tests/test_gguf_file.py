"""The reader: what it reads, what it refuses and in which words."""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path
from struct import pack

import gguf_cases as cases
import numpy as np
import pytest
from gguf_cases import CASES, Case, Save, array, gguf, one, pair, refusal, string, strings, tensor, u32

from sis_core.errors import ClosedError, GGUFError, SourceError
from sis_core.gguf_file import REMOVED_TYPES, TENSOR_TYPES, Array, GGUFFile
from sis_core.gguf_file.header import Header, read_header


def parse(data: bytes) -> Header:
    return read_header(io.BytesIO(data), len(data), "memory")


# The refusal table.


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_refused(case: Case, save: Save) -> None:
    path = save(case.data)
    text = refusal(lambda: GGUFFile.open(path))
    assert text.startswith(f"{path}: ")
    for words in case.says:
        assert words in text


def test_the_table_has_62_cases() -> None:
    assert len(CASES) + len((cases.OPAQUE, cases.SCALAR)) == 62
    assert sum(not name.startswith("X_") for name in CASES) == 27 - 1


def test_strings_of_any_length_and_content(save: Save) -> None:
    """Over several stretches of the header: empty ones, long ones, and some that look like lengths."""
    numbers = np.random.default_rng(0)
    texts = [b"x" * int(n) for n in numbers.integers(1, 20, 20_000)]
    odd = [b"", b"\0", b"\5" + bytes(7), bytes(40), b"y" * 255, b"y" * 256, b"z" * 70_000]
    for at in numbers.integers(0, len(texts), 40):
        texts[at] = odd[at % len(odd)]
    for some in (texts, [*texts, b""], [b""] * 9, odd, texts[:1], []):
        with GGUFFile.open(save(gguf([strings("k", some), u32("after", 7)]))) as file:
            found = file.metadata["k"]
            assert isinstance(found, Array)
            assert found.bytes_list() == some
            assert file.metadata["after"] == 7


def test_opaque_tensor(save: Save) -> None:
    with GGUFFile.open(save(cases.OPAQUE)) as file:
        info = file.tensors["t"]
        assert (info.type_id, info.type_name, info.known) == (99, "type 99", False)
        assert (info.shape, info.n_bytes, len(file.raw("t"))) == ((32,), 64, 64)


def test_scalar_tensor(save: Save) -> None:
    with GGUFFile.open(save(cases.SCALAR)) as file:
        assert (file.tensors["t"].shape, file.tensors["t"].n_bytes) == ((), 4)


@pytest.mark.parametrize("type_id", REMOVED_TYPES)
def test_removed_types(type_id: int) -> None:
    text = refusal(lambda: parse(one([256], type_id)))
    name, successor = REMOVED_TYPES[type_id]
    assert f"type {type_id} ({name})" in text
    assert f"as {successor}" in text


OTHER_REFUSALS = {
    "NUL in a key": (gguf([u32("a\0b", 1)]), "key 0 has a NUL"),
    "no tensor name": (one([32], name=""), "tensor 0 has no name"),
    "alignment below 8": (gguf([u32("general.alignment", 4)]), "at least 8"),
    "unknown element type": (gguf([array("k", 13, 1, bytes(8))]), "key 'k' is an array of value type 13"),
    "bool array": (gguf([array("k", cases.BOOL, 3, b"\1\0\7")]), "key 'k' has a bool that is 7"),
    "string array too long": (
        gguf([array("k", cases.STRING, 9, bytes(64))]),
        "key 'k', an array[string] of 9 elements, needs 72 bytes",
    ),
    "string leaves the file": (gguf([array("k", cases.STRING, 2, string("ab") + pack("<Q", 99))]), "string 1 of"),
    "length leaves the file": (
        gguf(
            [
                array("k", cases.STRING, 2, string("abcdefgh")),
            ]
        ),
        "string 1 of",
    ),
    "string of 2**64 - 1": (gguf([array("k", cases.STRING, 2, pack("<Q", 2**64 - 1) + bytes(99))]), "string 0 of"),
    "same offset": (cases.two(tensor("t", [8]), tensor("u", [8])), "tensor 'u' at offset 0 overlaps tensor 't'"),
    "opaque at the same offset": (cases.two(tensor("t", [8], 99), tensor("u", [8])), "overlaps"),
    "opaque past the end": (one([8], 99, offset=128), "tensor 't' needs bytes 128 to 129"),
    "opaque of absurd shape": (one([2**40], 99), "claims 1099511627776 elements in 128 bytes"),
    "control characters": (one([33], 2, name="\x1b[2J\nt"), r"tensor '\x1b[2J\nt'"),
}


@pytest.mark.parametrize(("data", "words"), OTHER_REFUSALS.values(), ids=OTHER_REFUSALS.keys())
def test_other_refusals(data: bytes, words: str) -> None:
    assert words in refusal(lambda: parse(data))


def test_metadata_have_a_limit() -> None:
    """A key that claims 200 MB of a file that really is that long is refused before the memory is taken."""

    class Endless(io.RawIOBase):
        def read(self, n: int = -1, /) -> bytes:
            assert n < 2**20, "asks for more than it needs"
            return front[:n].ljust(n, b"\0") if n else b""

    front = gguf([array("k", cases.U8, 200_000_000, b"")])
    assert "no more than 134217728" in refusal(lambda: read_header(Endless(), 10**12, "m"))  # type: ignore[arg-type]


def test_every_prefix_is_refused() -> None:
    whole = gguf([u32("a", 1), strings("s", ["x", "yz"])], [tensor("t", [32])], bytes(128))
    parse(whole)
    for n in range(len(whole)):
        refusal(lambda n=n: parse(whole[:n]))  # type: ignore[misc]


def test_mutated_files(tmp_path: Path) -> None:
    """A sample of what fuzz_gguf.py does a million times."""
    pytest.importorskip("resource", reason="the limits of fuzz_gguf.py are those of Unix")
    from fuzz_gguf import fuzz

    said: list[str] = []
    assert fuzz(4000, 1, tmp_path, said.append) == 0, said


# What is not a GGUF file at all.

STRANGERS = {
    "GGMF": (b"fmgg" + bytes(32), "GGMF"),
    "GGLA": (b"algg" + bytes(32), "LoRA"),
    "pickle": (b"\x80\x02}q\x00.", "Python pickle"),
    "PyTorch": (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "PyTorch checkpoint"),
    "zip": (b"PK\x03\x04" + bytes(26) + b"model.gguf", "ZIP"),
    "gzip": (b"\x1f\x8b\x08" + bytes(32), "gzip"),
    "zstd": (b"(\xb5/\xfd" + bytes(32), "Zstandard"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "JSON": (b'{"error": "not found"}', "JSON"),
    "XML": (b'<?xml version="1.0"?><Error/>', "XML"),
    "HTML after white space": (b"\xef\xbb\xbf\r\n <html>", "HTML"),
    "zeros": (bytes(4096), "zero bytes"),
    "text": (b"hello, world", "starts with b'hell'"),
}


@pytest.mark.parametrize(("data", "words"), STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers(data: bytes, words: str, save: Save) -> None:
    path = save(data)
    text = refusal(lambda: GGUFFile.open(path))
    assert words in text
    assert "not" in text


def test_pickles_are_never_loaded() -> None:
    assert "never" in refusal(lambda: parse(b"\x80\x04cos\nsystem\n"))


def test_no_such_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(lambda: GGUFFile.open(tmp_path / "none.gguf"), SourceError)


def test_directory(tmp_path: Path) -> None:
    assert "this is a directory" in refusal(lambda: GGUFFile.open(tmp_path), SourceError)


def test_below_a_file(save: Save) -> None:
    path = save(b"GGUF") / "model.gguf"
    assert "cannot be opened" in refusal(lambda: GGUFFile.open(path), SourceError)


def test_name_with_nul() -> None:
    assert "cannot be opened" in refusal(lambda: GGUFFile.open("a\0b"), SourceError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "this is a pipe" in refusal(lambda: GGUFFile.open(tmp_path / "pipe"), SourceError)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no sockets in directories")
def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        assert "this is a socket" in refusal(lambda: GGUFFile.open("s"), SourceError)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no device files")
def test_device() -> None:
    assert "this is a device" in refusal(lambda: GGUFFile.open(os.devnull), SourceError)


def test_unreadable(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(gguf())
    monkeypatch.setattr(os, "open", _refuse_to_open)  # permissions do not stop root
    assert "may not be read" in refusal(lambda: GGUFFile.open(path), SourceError)


def _refuse_to_open(*_: object, **__: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_disk_error(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(gguf())

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sis_core.gguf_file.reader.read_header", fail)
    assert "Input/output error" in refusal(lambda: GGUFFile.open(path), SourceError)


# What is read.

SCALARS = [
    (0, "<B", 255, "uint8"),
    (1, "<b", -128, "int8"),
    (2, "<H", 65535, "uint16"),
    (3, "<h", -32768, "int16"),
    (4, "<I", 2**32 - 1, "uint32"),
    (5, "<i", -(2**31), "int32"),
    (6, "<f", 0.5, "float32"),
    (7, "<?", True, "bool"),
    (10, "<Q", 2**64 - 1, "uint64"),
    (11, "<q", -(2**63), "int64"),
    (12, "<d", 0.1, "float64"),
]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("type", "layout", "value", "name"), SCALARS)
def test_scalars_and_arrays(type: int, layout: str, value: object, name: str, version: int) -> None:
    pairs = [pair("one", type, pack(layout, value)), array("many", type, 3, pack(layout, value) * 3)]
    header = parse(gguf(pairs, version=version))
    assert header.metadata["one"] == value
    assert header.metadata["one"].__class__ is value.__class__
    many = header.metadata["many"]
    assert isinstance(many, Array)
    assert list(many) == [value] * 3 == [many[0], many[1], many[-1]] == many[:]
    assert many.numpy().tolist() == [value] * 3
    assert not many.numpy().flags.writeable
    assert dict(header.metadata_types) == {"one": name, "many": f"array[{name}]"}


def test_strings_are_text_and_their_arrays_bytes() -> None:
    texts = [b"", "wörter".encode(), b"\xff\xfe", b"a" * 300, b""]
    header = parse(gguf([pair("s", cases.STRING, string("ü\0")), strings("a", texts), strings("none", [])]))
    many = header.metadata["a"]
    assert isinstance(many, Array)
    assert header.metadata["s"] == "ü\0"
    assert list(many) == many.bytes_list() == texts == [many[i] for i in range(5)]
    assert many[-4:-2] == texts[-4:-2]
    assert list(header.metadata["none"]) == []  # type: ignore[arg-type]
    assert many.element_type == "string"
    assert len(repr(many)) < 100
    with pytest.raises(IndexError, match="5"):
        many[5]


def test_wrong_kind_of_array_says_which_key() -> None:
    header = parse(gguf([strings("words", ["a"]), array("numbers", cases.U8, 1, b"\1")]))
    words, numbers = header.metadata["words"], header.metadata["numbers"]
    assert isinstance(words, Array)
    assert isinstance(numbers, Array)
    with pytest.raises(GGUFError, match=r"memory: key 'words': holds strings, not numbers"):
        words.numpy()
    with pytest.raises(GGUFError, match=r"memory: key 'numbers': holds uint8, not strings"):
        numbers.bytes_list()


def test_large_vocabulary(save: Save) -> None:
    """String arrays that need several reads come out whole."""
    tokens = [b"%d" % (i * i) for i in range(150_000)]
    merges = [b"\xc4\xa0 %d" % i for i in range(280_000)]
    path = save(gguf([strings("tokens", tokens), u32("between", 7), strings("merges", merges), u32("after", 8)]))
    with GGUFFile.open(path) as file:
        for key, expected in (("tokens", tokens), ("merges", merges)):
            found = file.metadata[key]
            assert isinstance(found, Array)
            assert found.bytes_list() == expected
        assert (file.metadata["between"], file.metadata["after"]) == (7, 8)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors(save: Save, version: int, alignment: int) -> None:
    data = bytes(range(128)).ljust(max(alignment, 128), b"-") + b"q" * 36
    entries = [tensor("a", [16, 2]), tensor("b", [32, 2], cases.TYPE_Q4_0, max(alignment, 128))]
    pairs = [u32("general.alignment", alignment)]
    with GGUFFile.open(save(gguf(pairs, entries, data, alignment=alignment, version=version))) as file:
        assert (file.version, file.alignment) == (version, alignment)
        assert list(file.tensors) == ["a", "b"]
        a, b = file.tensors.values()
        assert (a.shape, a.type_id, a.type_name, a.n_bytes, a.known) == ((2, 16), 0, "F32", 128, True)
        assert (b.shape, b.type_id, b.type_name, b.n_bytes) == ((2, 32), 2, "Q4_0", 36)
        assert a.offset % alignment == b.offset % alignment == 0
        assert file.raw("a").tobytes() == bytes(range(128))
        assert file.raw("b").tobytes() == b"q" * 36
        assert file.raw("a").dtype == np.uint8
        assert not file.raw("a").flags.writeable


def test_tensors_in_any_order_with_gaps() -> None:
    entries = [tensor("z", [8], offset=128), tensor("a", [8], offset=32)]
    assert [info.name for info in parse(gguf((), entries, bytes(160))).tensors] == ["z", "a"]


def test_opaque_tensor_ends_at_the_next() -> None:
    entries = [tensor("u", [8], offset=96), tensor("t", [8], 99, 32)]
    header = parse(gguf((), entries, bytes(160)))
    assert header.tensors[1].n_bytes == 64


def test_nothing_can_be_changed(save: Save) -> None:
    with GGUFFile.open(save(one([32]))) as file:
        with pytest.raises(TypeError):
            file.metadata["k"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            del file.tensors["t"]  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            file.tensors["t"].shape = ()  # type: ignore[misc]
        with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
            file.raw("t").flags.writeable = True


# The life of a file.


def test_closed(save: Save) -> None:
    file = GGUFFile.open(save(gguf([strings("s", ["x"])], [tensor("t", [32])], b"x" * 128)))
    view = file.raw("t")
    file.close()
    file.close()
    assert view.tobytes() == b"x" * 128, "a view outlives its file"
    assert list(file.metadata["s"]) == [b"x"], "so do metadata"  # type: ignore[arg-type]
    for use in (file.raw, file.release):
        with pytest.raises(ClosedError, match="'t'"):
            use("t")
    assert "closed" in repr(file)


def test_descriptors_are_given_back(save: Save) -> None:
    path, bad = save(one([32])), save(CASES["X_ZERO_DIM"].data, "bad.gguf")

    def next_free() -> int:
        os.close(number := os.dup(0))
        return number

    before = next_free()
    for _ in range(3):
        GGUFFile.open(path)
        GGUFFile.open(path).close()
        with pytest.raises(GGUFError):
            GGUFFile.open(bad)
    assert next_free() == before


@pytest.mark.parametrize("size", [100, 0, 500])
def test_file_changes_its_size(save: Save, size: int) -> None:
    path = save(one([32]))
    with GGUFFile.open(path) as file:
        os.truncate(path, size)
        text = refusal(lambda: file.raw("t"))
    assert f"from {len(one([32]))} to {size} bytes" in text
    assert "open the model again" in text.lower()


def test_file_is_rewritten(save: Save) -> None:
    path = save(one([32]))
    with GGUFFile.open(path) as file:
        save(one([32], data=128)[:-1] + b"x")
        os.utime(path, (1, 1))  # a rewrite within the clock's tick
        assert "was rewritten" in refusal(lambda: file.raw("t"))


def test_file_is_replaced(save: Save, tmp_path: Path) -> None:
    """A file moved over ours leaves ours as it was."""
    path, other = save(one([32])), save(b"other", "other")
    with GGUFFile.open(path) as file:
        other.replace(path)
        assert file.raw("t").tobytes() == bytes(128)


def test_file_shrinks_while_it_is_read() -> None:
    data = gguf([strings("s", ["x" * 100_000])])
    assert "shrank to 70000 bytes" in refusal(lambda: read_header(io.BytesIO(data[:70_000]), len(data), "m"))


def test_release(save: Save) -> None:
    data = os.urandom(100_000)
    with GGUFFile.open(save(gguf((), [tensor("t", [25_000])], data))) as file:
        view = file.raw("t")
        file.release("t")
        assert view.tobytes() == data
        with pytest.raises(KeyError):
            file.release("u")
        with pytest.raises(KeyError):
            file.raw("u")


# Against the `gguf` package.


def test_type_table() -> None:
    constants = pytest.importorskip("gguf.constants")
    theirs = {int(id): (int(id), id.name, *sizes) for id, sizes in constants.GGML_QUANT_SIZES.items()}
    assert {id: tuple(type) for id, type in TENSOR_TYPES.items()} == theirs
    assert not set(REMOVED_TYPES) & set(theirs)


def test_value_types() -> None:
    constants = pytest.importorskip("gguf.constants")
    tables = pytest.importorskip("sis_core.gguf_file.tables")
    ours = {type.name.upper(): id for id, type in tables.VALUE_TYPES.items()} | {"ARRAY": tables.ARRAY}
    assert ours == {type.name: int(type) for type in constants.GGUFValueType}


def test_a_file_of_the_gguf_package(tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    path = tmp_path / "theirs.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_uint32("n", 7)
    writer.add_float32("x", 0.5)
    writer.add_bool("yes", True)
    writer.add_token_list(["a", "ü"])
    writer.add_token_scores([0.5, -1.0])
    weights = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("w", weights)
    writer.add_tensor("h", weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(path) as file:
        assert [file.metadata[key] for key in ("general.architecture", "n", "x", "yes")] == ["llama", 7, 0.5, True]
        assert list(file.metadata["tokenizer.ggml.tokens"]) == [b"a", "ü".encode()]  # type: ignore[arg-type]
        assert list(file.metadata["tokenizer.ggml.scores"]) == [0.5, -1.0]  # type: ignore[arg-type]
        assert file.tensors["w"].shape == (2, 32)
        assert file.raw("w").tobytes() == weights.tobytes()
        assert file.raw("h").view("<f2").tolist() == weights.ravel().tolist()


def test_stories260k(test_data: Path) -> None:
    package = pytest.importorskip("gguf")
    path = test_data / "models" / "stories260K.gguf"
    theirs = package.GGUFReader(path)
    with GGUFFile.open(path) as file:
        assert len(file.tensors) == len(theirs.tensors) == 48
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert info.shape == tuple(int(n) for n in reversed(tensor.shape))
            assert (info.type_name, info.n_bytes) == (tensor.tensor_type.name, tensor.n_bytes)
            assert info.offset == tensor.data_offset
            assert file.raw(tensor.name).tobytes() == tensor.data.tobytes()
        assert file.metadata["llama.block_count"] == 5
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 512  # type: ignore[arg-type]
