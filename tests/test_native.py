"""The contract with native code: the mirror of the header, and libraries that are missing or wrong."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import re
from pathlib import Path

import pytest

from sis_core.backends.native import abi, open_library
from sis_core.backends.native.library import Library
from sis_core.backends.native.memory import Arena, aligned
from sis_core.errors import BackendError

HEADER = Path(abi.__file__).parents[2] / "include" / "sis" / "abi.h"
TEXT = re.sub(r"/\*.*?\*/", "", HEADER.read_text("utf-8"), flags=re.S)
SIMPLE = {"uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64, "int32_t": ctypes.c_int32, "float": ctypes.c_float}


def c_type(text: str) -> object:
    text = text.replace("const", "").strip()
    return SIMPLE.get(text, ctypes.c_void_p)


def header_structs() -> dict[str, list[tuple[str, object]]]:
    found = {}
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", TEXT, flags=re.S | re.M):
        fields: list[tuple[str, object]] = []
        for line in (part.strip() for part in body.split(";")):
            if match := re.fullmatch(r"\w+ \(\*(\w+)\)\(.*\)", line, flags=re.S):
                fields.append((match[1], ctypes.c_void_p))
            elif match := re.fullmatch(r"(.*?[\s*])(\w+)", line, flags=re.S):
                fields.append((match[2], c_type(match[1])))
            else:
                assert not line, f"cannot read {line!r}"
        found[name] = fields
    return found


def test_structures_are_those_of_the_header() -> None:
    structs = header_structs()
    assert list(structs) == list(abi.STRUCTURES)
    for name, mirror in abi.STRUCTURES.items():
        assert [(f[0], f[1]) for f in mirror._fields_] == structs[name], name


def test_prototypes_are_those_of_the_header() -> None:
    found = {}
    for result, name, arguments in re.findall(
        r"^SIS_EXPORT ([\w ]+?\**\s?\*?)(\w+)\((.*?)\);", TEXT, flags=re.S | re.M
    ):
        kinds = [c_type(a.strip().rpartition("*")[0] + "*" if "*" in a else a.strip().rpartition(" ")[0])
                 for a in arguments.split(",") if a.strip() != "void"]  # fmt: skip
        known = SIMPLE | {"void": None, "const char *": ctypes.c_char_p, "sis_decode_fn": ctypes.c_void_p}
        returned = known[result.strip()]
        found[name] = (returned, kinds)
    assert found == abi.PROTOTYPES


def test_numbers_are_those_of_the_header() -> None:
    values = {}
    for body in re.findall(r"^enum \w+ \{(.*?)\};", TEXT, flags=re.S | re.M):
        listed = [part.strip() for part in body.split(",")]
        assert all(re.fullmatch(r"SIS_\w+ = \d+", part) for part in listed), "every number stands in the header"
        values.update({name: int(value) for name, value in (part.split(" = ") for part in listed)})
    values.update({name: int(value) for name, value in re.findall(r"#define (SIS_\w+) (\d+)", TEXT)})
    ours = {f"SIS_{name}": number for name, number in abi.FORMATS.items()}
    ours |= {"SIS_DECODED": abi.DECODED, "SIS_FOREIGN": abi.FOREIGN, "SIS_ABI": abi.ABI, "SIS_OUT": abi.OUT}
    ours |= {f"SIS_{name.upper()}": number for name, number in abi.ACTIVATIONS.items()}
    ours |= {f"SIS_KV_{name.upper()}": number for name, number in abi.KV_TYPES.items()}
    ops = ("NORM", "COPY", "ACT", "PREPARE", "ROPE", "STORE", "SCALE", "GATHER", "LINEAR", "ATTEND", "TAKE")
    ours |= {f"SIS_OP_{name}": getattr(abi, name) for name in ops} | {"SIS_OP_ADD": abi.ADD_TO}
    ours |= {
        f"SIS_{name}": getattr(abi, name) for name in ("ADD", "GATED", "LAYER_NORM", "NEOX", "BY_POSITION", "NO_ROOM")
    }
    ours |= {"SIS_Q8": abi.FOR_Q8, "SIS_FLOAT": abi.FOR_FLOAT, "SIS_INVARIANT": abi.INVARIANT}
    assert {name: number for name, number in values.items() if not name.startswith("SIS_N_")} == ours


def test_sizes_are_those_of_the_kernels() -> None:
    kernels = (Path(__file__).parents[1] / "native" / "kernels.h").read_text("utf-8")
    found = {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)", kernels)}
    assert (found["TILE"], found["MAX_HEAD"]) == (abi.TILE, abi.MAX_HEAD)


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIS_LIBRARY", raising=False)
    with pytest.raises(BackendError, match="was built without native code for this machine"):
        Library(tmp_path / "libsis.so")
    with pytest.raises(BackendError, match="was built without native code"):
        open_library("sis_llama")


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "libsis.so"
    path.write_bytes(b"not a library")
    with pytest.raises(BackendError, match=r"^[^\n]*cannot be loaded[^\n]*$"):
        Library(path)


def test_a_library_of_somebody_else() -> None:
    name = ctypes.util.find_library("c")
    path = next((p for p in Path("/").glob(f"lib/*/{name}")), None) if name else None
    if path is None:
        pytest.skip("no C library to be found")
    with pytest.raises(BackendError, match="has no function sis_abi: it is not a kernel library of sis"):
        Library(path)


def test_memory_begins_on_borders() -> None:
    arena = Arena(1000)
    assert arena.address % (2 << 20) == 0
    assert [arena.take(n) - arena.address for n in (1, 64, 100)] == [0, 64, 128]
    with pytest.raises(AssertionError, match="planned too small"):
        arena.take(1000)
    assert all(aligned(n).__array_interface__["data"][0] % 64 == 0 for n in (1, 63, 4097))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sis-x86 is for x86-64")
def test_this_machine_has_its_library() -> None:
    from sis_x86.backend import X86Backend

    assert X86Backend().library().isa_name  # where it is missing, other tests of it are skipped
