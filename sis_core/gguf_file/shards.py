"""Models split over several files, as llama.cpp's gguf-split writes them.

Every part says `split.no` (from 0), `split.count` and `split.tensors.count` (of all parts), and is named
`NAME-00001-of-00003.gguf` with numbers from 1. The first part has the metadata of the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from sis_core.errors import GGUFError, SourceError
from sis_core.gguf_file.arrays import Value
from sis_core.gguf_file.cursor import DAMAGED, show
from sis_core.gguf_file.header import Header
from sis_core.gguf_file.tensors import TensorInfo

NO, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MAX_SHARDS = 99_999  # five digits in the name

_NAME = re.compile(r"(?P<stem>.+)-(?P<no>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def shard_paths(first: Path, metadata: Mapping[str, Value]) -> tuple[Path, ...]:
    """The files of the model whose first part is `first`: just that one when it is not split.

    Raises:
        GGUFError: `first` is a later part, or its name and its metadata disagree.
        SourceError: a part is missing; the message names it.
    """
    count = _int(metadata, COUNT, first) if COUNT in metadata else 1
    if count in (0, 1):  # gguf-split --merge leaves a 0
        return (first,)
    if not 1 < count <= MAX_SHARDS:
        raise _refuse(first, f"key {COUNT!r} is {count}; it must be 1 to {MAX_SHARDS}")
    name = _NAME.fullmatch(first.name)
    no = _int(metadata, NO, first)
    if not name or (int(name["no"]), int(name["count"])) != (no + 1, count):
        expected = f"NAME-{no + 1:05}-of-{count:05}.gguf"
        raise GGUFError(
            f"this is part {no + 1} of {count} of a split model, but its name does not say so",
            where=str(first),
            fix=f"give every part its own name again ({expected}), or merge them with llama.cpp's gguf-split --merge",
        )
    paths = (first.with_name(f"{name['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1))
    if no:
        what, fix = f"this is part {no + 1} of {count} of a split model", f"open the first part: {next(paths)}"
        raise GGUFError(what, where=str(first), fix=fix)
    return tuple(_present(path, first, count) for path in paths)


def _present(path: Path, first: Path, count: int) -> Path:
    if not path.exists():
        what, fix = (
            f"this model has {count} parts, and {path.name} is missing",
            "download every part into one directory",
        )
        raise SourceError(what, where=str(first), fix=fix)
    return path


def merge(paths: Sequence[Path], headers: Sequence[Header]) -> dict[str, TensorInfo]:
    """The tensors of all parts by name, in the order of the parts, each with the number of its part.

    Raises:
        GGUFError: a part belongs elsewhere, a tensor is in two parts, or tensors are missing.
    """
    tensors: dict[str, TensorInfo] = {}
    for i, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if len(paths) > 1:
            _check_part(path, header, i, len(paths))
        for info in header.tensors:
            if info.name in tensors:
                raise _refuse(path, f"tensor {show(info.name)} is also in {paths[tensors[info.name].shard].name}")
            tensors[info.name] = evolve(info, shard=i) if i else info
    if len(paths) > 1 and (total := _int(headers[0].metadata, TENSORS, paths[0])) != len(tensors):
        raise _refuse(paths[0], f"key {TENSORS!r} is {total}, but the {len(paths)} parts have {len(tensors)} tensors")
    return tensors


def _check_part(path: Path, header: Header, i: int, count: int) -> None:
    for key, expected in ((NO, i), (COUNT, count)):
        if (found := _int(header.metadata, key, path)) != expected:
            raise _refuse(path, f"key {key!r} is {found}, but as part {i + 1} of {count} it must be {expected}")


def _int(metadata: Mapping[str, Value], key: str, path: Path) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(path, f"key {key!r}, which every part of a split model needs, is " + _absent_or_wrong(value))
    return value


def _absent_or_wrong(value: Value | None) -> str:
    return "missing" if value is None else "not an integer"


def _refuse(path: Path, what: str) -> GGUFError:
    return GGUFError(what, where=str(path), fix=DAMAGED)
