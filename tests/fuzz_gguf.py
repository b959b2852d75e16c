"""Mutates valid and malformed GGUF files and asserts that the reader either reads them or raises a SisError.

    python tests/fuzz_gguf.py --count 1000000

Seeds are files of both versions, with every value type, every kind of tensor, formats without an id and parts of a
split model, and the 62 malformed files of the refusal table. A file that takes a second, 200 MB or another exception
is a failure: its bytes are saved and the exit status is 1. What is accepted is read to its last byte and checked
against what every GGUF file promises.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import Any
from unittest.mock import patch

import gguf_cases as cases
from gguf_cases import array, gguf, pair, string, strings, tensor, u32

from sis_core.errors import SisError
from sis_core.gguf_file import TENSOR_TYPES, Array, GGUFFile, foreign, header, shards
from sis_core.gguf_file.cursor import Cursor

SECONDS = 1.0
MEGABYTES = 200
TO_DISK_EVERY = 100  # this many are read from memory for one that is opened as a file

EXTREMES = sorted(
    {sign * 2**n + d for n in (0, 3, 7, 8, 15, 16, 31, 32, 33, 61, 62, 63, 64) for sign in (1, -1) for d in (-1, 0, 1)}
)
HOSTILE = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b[2J",
    b"../",
    b"GGUF",
    b"general.alignment",
    b"sis.tensor.names",
    b"split.count",
)


def _seeds() -> dict[str, bytes]:
    numbers = [
        pair(f"n{id}", id, pack(code, 1)) for id, code in enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))
    ]
    numbers += [pair("n10", 10, pack("<Q", 1)), pair("n11", 11, pack("<q", -1)), pair("n12", 12, pack("<d", 0.5))]
    arrays = [array(f"a{id}", id, 3, bytes(3 * size)) for id, size in ((0, 1), (2, 2), (5, 4), (6, 4), (7, 1), (10, 8))]
    words = [
        strings("words", ["", "a", b"\xff", "wörter" * 9]),
        pair("s", cases.STRING, string("text")),
        strings("e", []),
    ]
    kinds = [tensor(f"t{id}", [type.block_size, 2], id, 1024 * i) for i, (id, type) in enumerate(TENSOR_TYPES.items())]
    mixed = [tensor("f", [32]), tensor("x", [32], 99, 128), tensor("s", [], 0, 160), tensor("q", [32, 2], 2, 192)]
    keys = [strings(f"sis.tensor.{key}", texts) for key, texts in _FOREIGN.items()]
    stored = [tensor("t", [16, 2], 24), tensor("u", [36], 24, 32), tensor("v", [8], 0, 96)]
    return {
        "empty": gguf(),
        "numbers": gguf(numbers),
        "arrays": gguf(arrays, version=2),
        "words": gguf(words),
        "everything": gguf(numbers + arrays + words, mixed, bytes(256), version=2),
        "every type": gguf((), kinds, bytes(1024 * len(kinds))),
        "aligned": gguf(
            [u32("general.alignment", 64)], [tensor("t", [8]), tensor("u", [8], offset=64)], bytes(96), alignment=64
        ),
        "foreign": gguf(keys, stored, bytes(128)),
        **{f"part {no}": _part(no) for no in range(3)},
        "opaque": cases.OPAQUE,
        "scalar": cases.SCALAR,
    }


_FOREIGN = {"names": ["t", "u"], "formats": ["XQ2", "my.q"], "packages": ["sis-xq2", ""], "shapes": ["64,2", "7"]}


def _part(no: int) -> bytes:
    split = [pair("split.no", 2, pack("<H", no)), pair("split.count", 2, pack("<H", 3)), u32("split.tensors.count", 3)]
    return gguf(split, [tensor(f"t{no}", [8])], bytes(32))


class _Recorder(Cursor):
    """Remembers where the header's numbers and strings stand."""

    fields: list[tuple[int, int]]

    def take(self, n: int, what: str) -> bytes:
        taken = super().take(n, what)
        self.fields.append((self.pos - n, n))
        return taken


def _fields(data: bytes) -> list[tuple[int, int]]:
    _Recorder.fields = []
    with patch.object(header, "Cursor", _Recorder), suppress(SisError):
        header.read_header(io.BytesIO(data), len(data), "seed")
    return _Recorder.fields or [(0, min(4, len(data)))]


class Mutator:
    """Endless mutated files from a seed of randomness."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        valid, malformed = _seeds(), {name: case.data for name, case in cases.CASES.items()}
        self.seeds = [(data, _fields(data)) for data in [*valid.values()] * 20 + [*malformed.values()]]
        self.steps: list[Callable[[bytearray, list[tuple[int, int]]], None]] = [
            self._flip, self._extreme, self._extreme, self._extreme, self._small, self._cut, self._grow,
            self._splice, self._repeat, self._delete, self._hostile,
        ]  # fmt: skip

    def next(self) -> bytes:
        """One more file, one to four mutations away from a seed."""
        source, fields = self.random.choice(self.seeds)
        data = bytearray(source)
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 4))):
            self.random.choice(self.steps)(data, fields)
        return bytes(data)

    def _flip(self, data: bytearray, _: object) -> None:
        for _n in range(self.random.randint(1, 8)):
            if data:
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _extreme(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        pos, n = self.random.choice(fields)
        size = n if n in (1, 2, 4, 8) else 8
        data[pos : pos + size] = (self.random.choice(EXTREMES) % 2 ** (8 * size)).to_bytes(size, "little")

    def _small(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        """A number that is nearly right, or the length of what is left: what a plausible lie looks like."""
        pos, n = self.random.choice(fields)
        if n in (1, 2, 4, 8):
            old = int.from_bytes(data[pos : pos + n], "little")
            new = self.random.choice(
                (old + self.random.randint(-9, 9), self.random.randrange(48), len(data) - pos, old * 2)
            )
            data[pos : pos + n] = (new % 2 ** (8 * n)).to_bytes(n, "little")

    def _cut(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        del data[self._place(data, fields) :]

    def _grow(self, data: bytearray, _: object) -> None:
        data += self.random.choice((bytes(32), b"\xff" * 7, self.random.randbytes(40), bytes(5000)))

    def _splice(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        other, their_fields = self.random.choice(self.seeds)
        data[self._place(data, fields) :] = other[self._place(other, their_fields) :]

    def _repeat(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        start, end = sorted((self._place(data, fields), self._place(data, fields)))
        data[end:end] = data[start:end]

    def _delete(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        start, end = sorted((self._place(data, fields), self._place(data, fields)))
        del data[start:end]

    def _hostile(self, data: bytearray, fields: list[tuple[int, int]]) -> None:
        """Other text of the right length: bad UTF-8, NUL, control characters, keys with a meaning."""
        pos, n = self.random.choice(fields)
        text = self.random.choice(HOSTILE)
        data[pos : pos + n] = (text * n)[:n] if self.random.random() < 0.7 else text

    def _place(self, data: bytes | bytearray, fields: list[tuple[int, int]]) -> int:
        return self.random.choice(fields)[0] if self.random.random() < 0.7 else self.random.randint(0, len(data))


def read(data: bytes) -> None:
    """Reads a file from memory to its last byte, as the first or only part of its model.

    Raises:
        SisError: the file is refused.
    """
    found = header.read_header(io.BytesIO(data), len(data), "memory")
    read_values(found.metadata)
    spans = sorted((info.offset, info.offset + info.n_bytes) for info in found.tensors)
    assert all(start < end <= len(data) and start % found.alignment == 0 for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    parts = [found]
    if found.metadata.get(shards.COUNT) == 3:
        parts += [header.read_header(io.BytesIO(part), len(part), "part") for part in (_part(1), _part(2))]
    elif isinstance(found.metadata.get(shards.COUNT), int):
        shards.shard_paths(Path(f"none/m-00001-of-{found.metadata[shards.COUNT]:05}.gguf"), found.metadata)
    paths = [Path(f"m-{i + 1:05}-of-{len(parts):05}.gguf") for i in range(len(parts))]
    tensors = shards.merge(paths, parts)
    resolved = foreign.resolve(tensors, found.metadata, "memory")
    assert list(resolved) == list(tensors)


def read_values(metadata: Any) -> None:
    """Reads every value in every way."""
    for key, value in metadata.items():
        assert key
        assert repr(value)
        if isinstance(value, Array):
            assert len(list(value)) == len(value) == len(value[:])
            assert len(value.bytes_list() if value.element_type == "string" else value.numpy()) == len(value)


def read_from_disk(data: bytes, path: Path) -> None:
    """Opens a file as a user would, and reads every tensor.

    Raises:
        SisError: the file is refused.
    """
    path.write_bytes(data)
    with GGUFFile.open(path) as file:
        read_values(file.metadata)
        for name, info in file.tensors.items():
            raw = file.raw(name).tobytes()
            assert info.shard or raw == data[info.offset : info.offset + info.n_bytes]


def fuzz(count: int, seed: int, folder: Path, say: Callable[[str], object] = print) -> int:
    """Reads `count` mutated files; returns how many failed and saves those in `folder`."""
    mutator, outcomes, failures, slowest = Mutator(seed), Counter[str](), 0, 0.0
    path = folder / "m-00001-of-00003.gguf"
    for no in (1, 2):
        (folder / f"m-0000{no + 1}-of-00003.gguf").write_bytes(_part(no))
    signal.signal(signal.SIGVTALRM, too_slow)
    for i in range(count):
        data, start = mutator.next(), time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # of computing: another program's load is no failure
        try:
            if i % TO_DISK_EVERY:
                read(data)
            else:
                read_from_disk(data, path)
            outcomes["accepted"] += 1
        except SisError as refused:
            outcomes[type(refused).__name__] += 1
            failures += not refused.where or "\n" in str(refused)
        except Exception as failure:
            failures += 1
            saved = folder / f"failure-{seed}-{i}.gguf"
            saved.write_bytes(data)
            say(f"{saved}: {failure!r}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        slowest = max(slowest, time.process_time() - start)
        if (i + 1) % 100_000 == 0:
            say(f"{i + 1} files: {dict(outcomes)}, {failures} failures, slowest {1000 * slowest:.1f} ms")
    return failures


class TooSlowError(Exception):
    """A file took over `SECONDS`."""


def too_slow(*_: object) -> None:
    raise TooSlowError(f"no answer within {SECONDS} s")


def limit_memory(megabytes: int) -> None:
    """Lets this process take so much more memory than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="files to read (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness (%(default)s)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sis-fuzz-"))
    fuzz(1000, options.seed, folder)  # imports what there is to import before memory is limited
    limit_memory(MEGABYTES)
    start = time.perf_counter()
    failures = fuzz(options.count, options.seed, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    print(f"{options.count} files in {seconds:.0f} s, {failures} failures, peak {peak:.0f} MB, {folder}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
