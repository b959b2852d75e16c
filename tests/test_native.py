"""The contract with native code: the mirror of the header, and libraries that are missing or wrong."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import re
from pathlib import Path
from typing import Any

import pytest

from sis_core import load
from sis_core.backends.native import abi, open_library
from sis_core.backends.native.border import Structure, taken
from sis_core.backends.native.library import Library
from sis_core.backends.native.memory import Arena, aligned
from sis_core.errors import BackendError
from sis_core.testing.kernels import kind_of_this_machine

HEADERS = [Path(abi.__file__).parents[2] / "include" / "sis" / name for name in ("abi.h", "program.h")]
TEXT = re.sub(r"/\*.*?\*/", "", "".join(header.read_text("utf-8") for header in HEADERS), flags=re.S)
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
    assert list(structs) == [mirror.c_name for mirror in abi.STRUCTURES]
    for mirror in abi.STRUCTURES:
        assert [(f[0], f[1]) for f in mirror._fields_] == structs[mirror.c_name], mirror


def test_prototypes_are_those_of_the_header() -> None:
    found = {}
    records = {
        f"{const}struct {mirror.c_name} *": ctypes.POINTER(mirror)
        for mirror in abi.STRUCTURES
        for const in ("const ", "")
    }
    for result, name, arguments in re.findall(
        r"^SIS_EXPORT ([\w ]+?\**\s?\*?)(\w+)\((.*?)\);", TEXT, flags=re.S | re.M
    ):
        kinds = {}
        for argument in arguments.split(","):
            if match := re.fullmatch(r"(.*?[\s*])(\w+)", argument.strip(), flags=re.S):
                kinds[match[2]] = ctypes.c_char_p if match[1].strip() == "const char *" else c_type(match[1])
                record = records.get(match[1].strip())  # taken as such, or as an address
                if record is not None and abi.PROTOTYPES[name][1].get(match[2]) is record:
                    kinds[match[2]] = record
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
    ours = {f"SIS_{name}": number for name, number in (abi.FORMATS | abi.TILES_ALONE).items()}
    ours |= {"SIS_DECODED": abi.DECODED, "SIS_FOREIGN": abi.FOREIGN, "SIS_ABI": abi.ABI, "SIS_OUT": abi.OUT}
    ours |= {f"SIS_{name.upper()}": number for name, number in (abi.CODES | abi.SCALES).items()}
    ours |= {"SIS_PROGRAM": abi.PROGRAM, "SIS_PREPARED": abi.MAX_PREPARED, "SIS_MADE": abi.MADE}
    ours |= {f"SIS_{name}": getattr(abi, name) for name in ("PLACES", "ROOM_FOREIGN", "ROOM_EXPERTS", "ROOM_PARTS")}
    ours |= {f"SIS_{name.upper()}": number for name, number in abi.ACTIVATIONS.items()}
    ours |= {f"SIS_{name.upper()}": number for name, number in abi.GATINGS.items()}
    ours |= {f"SIS_{name}": getattr(abi, name) for name in ("RENORMALISE", "SCALE_INPUT", "HALVES", "MAX_EXPERTS")}
    ours |= {f"SIS_KV_{name.upper()}": number for name, number in abi.KV_TYPES.items()}
    ops = ("NORM", "COPY", "ACT", "PREPARE", "ROPE", "STORE", "SCALE", "GATHER", "LINEAR", "ATTEND", "TAKE",
           "PREPARE_FOREIGN", "ROUTE", "EXPERTS", "COMBINE", "GATE", "CLAMP", "MULTIPLY",
           "HADAMARD")  # fmt: skip
    ours |= {f"SIS_OP_{name}": getattr(abi, name) for name in ops} | {"SIS_OP_ADD": abi.ADD_TO}
    ours |= {
        f"SIS_{name}": getattr(abi, name)
        for name in ("ADD", "GATED", "LAYER_NORM", "NEOX", "BY_POSITION", "PASSES", "NO_ROOM")
    }
    ours |= {"SIS_Q8": abi.FOR_Q8, "SIS_FLOAT": abi.FOR_FLOAT, "SIS_INVARIANT": abi.INVARIANT}
    assert {name: number for name, number in values.items() if not name.startswith("SIS_N_")} == ours


def test_sizes_are_those_of_the_kernels() -> None:
    native = Path(__file__).parents[1] / "native"
    kernels = "".join((native / name).read_text("utf-8") for name in ("kernels.h", "team.h"))
    found = {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)", kernels)}
    assert all(found[name] == getattr(abi, name) for name in ("TILE", "BLOCK", "MAX_HEAD", "MAX_THREADS"))


FIELDS = [(mirror, name, kind) for mirror in abi.STRUCTURES for name, kind in mirror._fields_]


@pytest.mark.parametrize(("mirror", "name", "kind"), FIELDS, ids=lambda v: getattr(v, "c_name", None) or str(v))
def test_every_field_takes_what_fits_and_nothing_else(mirror: type[Structure], name: str, kind: Any) -> None:
    def holds(value: object) -> bool:
        made, later = mirror(**{name: value}), mirror()
        setattr(later, name, value)
        return bool(getattr(made, name) == getattr(later, name) == value)

    for wrong in (object(), "1", b"1"):
        with pytest.raises(BackendError, match=rf"^{mirror.c_name}: {name} is "):
            holds(wrong)
    if kind is ctypes.c_float:
        assert holds(0.5)
        return
    most = (1 << 8 * ctypes.sizeof(kind)) - 1
    assert holds(1)
    assert holds(most)
    for wrong in (most + 1, -1, 1 << 70, 0.5):
        with pytest.raises(BackendError, match=rf"^{mirror.c_name}: {name} is {re.escape(str(wrong))}, but "):
            holds(wrong)
        with pytest.raises(BackendError, match=rf"^{mirror.c_name}: {name} is "):
            mirror(*[0] * [f[0] for f in mirror._fields_].index(name), wrong)


@pytest.mark.parametrize("mirror", abi.STRUCTURES, ids=lambda mirror: mirror.c_name)
def test_no_structure_takes_what_is_no_field(mirror: type[Structure]) -> None:
    for value in (0, None):
        with pytest.raises(TypeError, match=f"^{mirror.c_name} has no knid$"):
            mirror(knid=value)
    with pytest.raises(AttributeError, match=f"^{mirror.c_name} has no knid$"):
        mirror().knid = 0  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=f"^{mirror.c_name} has [0-9]+ fields, not "):
        mirror(*[0] * (len(mirror._fields_) + 1))


def test_every_argument_takes_what_fits_and_nothing_else() -> None:
    listed = [(f, *argument) for f, (_, arguments) in abi.PROTOTYPES.items() for argument in arguments.items()]
    for function, name, kind in listed:
        if kind is ctypes.c_char_p:
            continue
        if hasattr(kind, "contents"):  # a pointer to a record: ctypes itself takes no other
            with pytest.raises(TypeError):
                kind.from_param(1)
            continue
        taker, most = taken(function, name, kind), (1 << 8 * ctypes.sizeof(kind)) - 1
        assert taker.from_param(most).value == most
        for wrong in (most + 1, -1, 0.5, "1"):
            with pytest.raises(BackendError, match=rf"^{function}: {name} is "):
                taker.from_param(wrong)


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
    with pytest.raises(BackendError, match="has no function sis_program_version: it is not a kernel library of sis"):
        Library(path)


def test_memory_begins_on_borders() -> None:
    arena = Arena(1000)
    assert arena.address % (2 << 20) == 0
    assert [arena.take(n) - arena.address for n in (1, 64, 100)] == [0, 64, 128]
    with pytest.raises(AssertionError, match="planned too small"):
        arena.take(1000)
    assert all(aligned(n).__array_interface__["data"][0] % 64 == 0 for n in (1, 63, 4097))


@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("n_threads", [300, (1 << 32) - 1, 1 << 32, 1 << 64])
def test_no_number_of_threads_is_too_many_for_memory(random_model: Path, n_threads: int, pin: bool) -> None:
    def text(backend: str | None) -> str:
        with load(random_model, backend=backend, n_threads=n_threads, pin=pin) as model:
            return str(model.generate("ab", max_tokens=3))

    assert text("numpy")
    backend = kind_of_this_machine()
    if backend is None:
        pytest.skip("no native backend for this machine")
    if n_threads < 1 << 32:
        assert text(backend.name)
    else:
        with pytest.raises(BackendError, match=f"n_threads is {n_threads}, but native code takes an integer from 0"):
            text(backend.name)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sis-x86 is for x86-64")
def test_this_machine_has_its_library() -> None:
    from sis_x86.backend import X86Backend

    assert X86Backend().library().isa_name  # where it is missing, other tests of it are skipped
