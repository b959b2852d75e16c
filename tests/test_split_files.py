"""Models in several files."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import gguf_cases as cases
import pytest
from gguf_cases import Save, gguf, pair, refusal, strings, tensor, u32

from sis_core.errors import SourceError
from sis_core.gguf_file import GGUFFile


def shard(no: int, count: int, names: str, total: int, *extra: bytes, type: int = 0) -> bytes:
    pairs = [
        pair("split.no", 2, pack("<H", no)),
        pair("split.count", 2, pack("<H", count)),
        pair("split.tensors.count", cases.I32, pack("<i", total)),
        *extra,
    ]
    entries = [tensor(name, [8 if type == 0 else 32], type, 32 * i) for i, name in enumerate(names)]
    return gguf(pairs, entries, b"".join(name.encode() * 32 for name in names))


@pytest.fixture
def split(save: Save) -> Path:
    save(shard(1, 3, "c", 5), "m-00002-of-00003.gguf")
    save(shard(2, 3, "de", 5), "m-00003-of-00003.gguf")
    return save(shard(0, 3, "ab", 5, u32("k", 1)), "m-00001-of-00003.gguf")


def test_split_model(split: Path) -> None:
    with GGUFFile.open(split) as file:
        assert [path.name[:7] for path in file.paths] == ["m-00001", "m-00002", "m-00003"]
        assert [(info.name, info.shard) for info in file.tensors.values()] == list(
            zip("abcde", (0, 0, 1, 2, 2), strict=True)
        )
        for name in file.tensors:
            assert file.raw(name).tobytes() == name.encode() * 32
            file.release(name)
        assert file.metadata["k"] == 1


def test_merged_parts_are_one_file(save: Save) -> None:
    with GGUFFile.open(save(shard(0, 0, "ab", 2), "merged.gguf")) as file:  # gguf-split --merge leaves a count of 0
        assert list(file.tensors) == ["a", "b"]


def test_foreign_format_in_a_later_part(split: Path, save: Save) -> None:
    keys = (("names", "x"), ("formats", "XQ2"), ("packages", ""), ("shapes", "8"))
    pairs = [strings(f"sis.tensor.{key}", [text]) for key, text in keys]
    save(shard(0, 3, "ab", 4, *pairs), split.name)
    save(shard(1, 3, "x", 4, type=24), "m-00002-of-00003.gguf")
    save(shard(2, 3, "y", 4), "m-00003-of-00003.gguf")
    with GGUFFile.open(split) as file:
        assert (file.tensors["x"].type_name, file.tensors["x"].shard) == ("XQ2", 1)


def test_one_part_of_one(save: Save) -> None:
    with GGUFFile.open(save(shard(0, 1, "a", 1), "whole.gguf")) as file:
        assert list(file.tensors) == ["a"]


def test_missing_part(split: Path) -> None:
    (split.parent / "m-00002-of-00003.gguf").unlink()
    text = refusal(lambda: GGUFFile.open(split), SourceError)
    assert "m-00002-of-00003.gguf" in text
    assert "download" in text.lower()


def test_later_part(split: Path) -> None:
    text = refusal(lambda: GGUFFile.open(split.parent / "m-00002-of-00003.gguf"))
    assert "part 2 of 3" in text
    assert f"Open the first part: {split}" in text


def test_renamed_part(split: Path) -> None:
    text = refusal(lambda: GGUFFile.open(split.rename(split.parent / "model.gguf")))
    assert "part 1 of 3" in text
    assert "name" in text


SPLIT_REFUSALS = {
    "count differs": (1, shard(1, 4, "c", 5), "'split.count' is 4", "must be 3"),
    "number differs": (1, shard(2, 3, "c", 5), "'split.no' is 2", "must be 1"),
    "no keys": (1, gguf((), [tensor("c", [8])], bytes(32)), "'split.no'", "missing"),
    "duplicate tensor": (1, shard(1, 3, "a", 5), "tensor 'a'", "also in m-00001-of-00003.gguf"),
    "tensors missing": (2, shard(2, 3, "d", 5), "'split.tensors.count' is 5", "have 4 tensors"),
    "malformed part": (1, shard(1, 3, "c", 5)[:-9], "m-00002-of-00003.gguf", "tensor 'c'"),
    "count is a bool": (0, gguf([pair("split.count", cases.BOOL, b"\1")]), "'split.count'", "not an integer"),
}


@pytest.mark.parametrize(("no", "data", "words", "more"), SPLIT_REFUSALS.values(), ids=SPLIT_REFUSALS.keys())
def test_split_refusals(no: int, data: bytes, words: str, more: str, split: Path, save: Save) -> None:
    save(data, f"m-{no + 1:05}-of-00003.gguf")
    text = refusal(lambda: GGUFFile.open(split))
    assert words in text
    assert more in text
