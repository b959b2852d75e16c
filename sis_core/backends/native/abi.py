"""The structures of `include/sis/abi.h` and `program.h`, mirrored for ctypes. A test compares them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any, ClassVar

from sis_core.backends.native.border import Structure

if TYPE_CHECKING:
    from sis_core.backends.native.guard import Guard

ABI = 4  # what formats of others are compiled against
PROGRAM = 20  # what this release and its libraries of kernels agree on
OUT = 255  # the register that is the caller's output

FORMATS = {  # that have tiles, by GGUF's names
    name: number
    for number, name in enumerate((
        "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "Q4_1", "Q5_0", "Q5_1", "Q5_K", "Q3_K", "Q2_K", "IQ4_NL",
        "IQ4_XS", "MXFP4", "NVFP4", "TQ2_0", "TQ1_0",
    ))
}  # fmt: skip
F32, F16, BF16 = range(3)
TILES_ALONE = {  # of no type
    name: len(FORMATS) + number
    for number, name in enumerate((
        "T1", "T2", "U2", "T3", "U3", "T6", "T4_64", "T4_128", "U4_64", "U4_128", "U3_64", "T2_256",
        "R4_128", "P4", "S3_16", "T1_64", "T1_128", "T2_64", "T2_128", "T3_16", "T4_16", "U2_64", "U6", "U8", "D_64",
    ))
}  # fmt: skip
DECODED = len(FORMATS) + len(TILES_ALONE)
FOREIGN = DECODED + 1
FLOAT_FORMATS = frozenset({F32, F16, BF16, DECODED})

CODES = {"signed": 0, "unsigned": 1, "table": 2, "row_table": 3, "pairs": 4, "ternary": 5}
SCALES = {"half": 0, "bfloat": 1, "byte": 2, "nibble": 3, "super": 4, "six": 5}

NORM, COPY, ADD_TO, ACT, PREPARE, ROPE, STORE, SCALE, GATHER, LINEAR, ATTEND, TAKE, PREPARE_FOREIGN = range(13)
ROUTE, EXPERTS, COMBINE, GATE, CLAMP, MULTIPLY, HADAMARD = range(13, 20)
ADD, GATED, FOR_Q8, FOR_FLOAT, LAYER_NORM, NEOX, BY_POSITION, PASSES = (1 << i for i in range(8))
INVARIANT = 1
NO_ROOM = 1000
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4, "swiglu_oai": 5}
GATED_ONLY = frozenset({"swiglu_oai"})
GATINGS = {"softmax": 0, "sigmoid": 1, "softmax_weight": 2, "sparse_mixer": 3}
RENORMALISE, SCALE_INPUT, HALVES = 1, 2, 4
KV_TYPES = {"f32": 0, "f16": 1, "bf16": 2, "q8_0": 3, "q4_0": 4}

TILE = 16
BLOCK = 32
MAX_HEAD = 512
MAX_THREADS = 256
PLACES = 8  # for prepared rows: the first of all rooms
ROOM_FOREIGN, ROOM_EXPERTS, ROOM_PARTS, N_ROOMS = range(PLACES, PLACES + 4)
MAX_PREPARED = 4
MAX_EXPERTS = 1024
MADE = 3  # a tile that lies in its place


class Rows(Structure, c_name="sis_rows"):
    """``struct sis_rows``: a float32 matrix."""

    _fields_: ClassVar[Any] = [("values", c_void_p), ("n", c_uint64), ("n_cols", c_uint64), ("stride", c_uint64)]


class LinearObject(Structure, c_name="sis_linear"):
    """``struct sis_linear``: a weight that knows how to multiply."""

    _fields_: ClassVar[Any] = [
        ("abi", c_uint32), ("parts", c_uint32), ("self", c_void_p), ("run", c_void_p), ("prepared_bytes", c_void_p),
        ("prepare", c_void_p), ("form", c_uint64),
    ]  # fmt: skip


class Kind(Structure, c_name="sis_kind"):
    """``struct sis_kind``: what the tiles of a format hold."""

    _fields_: ClassVar[Any] = [("bits", c_uint32), ("codes", c_uint32), ("group", c_uint32), ("scales", c_uint32)]


class Unpacked(Structure, c_name="sis_unpacked"):
    """``struct sis_unpacked``: rows of codes and scales on their way into tiles.

    Attributes:
        owners: what keeps alive whatever the addresses lead to.
    """

    owners: tuple[object, ...] = ()

    _fields_: ClassVar[Any] = [
        ("n_rows", c_uint64), ("n_cols", c_uint64),
        *((name, c_void_p) for name in ("codes", "scales", "minima", "super_scales", "super_minima", "table")),
    ]  # fmt: skip


class Memory(Structure, c_name="sis_memory"):
    """Memory for tiles, which comes from the system in pieces."""

    _fields_: ClassVar[Any] = [("base", c_void_p), ("bytes", c_uint64), ("taken", c_void_p), ("cost", c_uint64)]


class Place(Structure, c_name="sis_place"):
    """Where the tiles of raw rows stay once they are made.

    Attributes:
        owners: what keeps alive whatever the addresses lead to.
    """

    owners: tuple[object, ...] = ()

    _fields_: ClassVar[Any] = [
        ("tiles", c_void_p),
        ("states", c_void_p),
        ("keep", c_uint32),
        ("n_made", c_uint32),
        ("mapped", c_uint32),
        ("stack", c_uint32),
        ("saved", c_void_p),
        ("memory", c_void_p),
    ]


class Weight(Structure, c_name="sis_weight"):
    """A weight as the kernels see it: packed tiles, raw rows, a decoder, or a linear object.

    Attributes:
        owners: what keeps alive whatever the addresses lead to.
        guard: of rows that are read in place from a file.
    """

    owners: tuple[object, ...] = ()
    guard: Guard | None = None

    _fields_: ClassVar[Any] = [
        ("format", c_uint32), ("reserved", c_uint32), ("n_rows", c_uint64), ("n_cols", c_uint64), ("tiles", c_void_p),
        ("raw", c_void_p), ("row_bytes", c_uint64), ("decode", c_void_p), ("linear", c_void_p),
        ("place", c_void_p),
    ]  # fmt: skip


class Experts(Structure, c_name="sis_experts"):
    """The experts of a layer."""

    _fields_: ClassVar[Any] = [
        *((name, c_uint32) for name in (
            "n_expert", "n_used", "n_ff", "n_out", "gating", "n_group", "n_group_used", "activation", "flags",
        )),
        ("scale", c_float),
        *((name, c_uint32) for name in ("chosen", "up_values")),
        *((name, c_void_p) for name in (
            "selection_bias", "gate_bias", "up_bias", "down_bias", "gate", "up", "down",
        )),
    ]  # fmt: skip


class Op(Structure, c_name="sis_op"):
    """One op of a program."""

    _fields_: ClassVar[Any] = [
        *((name, c_uint32) for name in (
            "kind", "flags", "src", "src2", "dst", "src_at", "src2_at", "dst_at", "width", "count", "activation",
            "layer", "table", "rope", "n_rot", "n_head", "n_head_kv", "k_dim", "v_dim", "window",
        )),
        ("eps", c_float), ("scale", c_float), ("cap", c_float), ("watched", c_uint32),
        ("gain", c_void_p), ("bias", c_void_p), ("weight", c_void_p), ("slopes", c_void_p), ("sinks", c_void_p),
        ("experts", c_void_p),
    ]  # fmt: skip


class Register(Structure, c_name="sis_register"):
    """One register of a program."""

    _fields_: ClassVar[Any] = [("cols", c_uint32), ("output", c_uint32)]


class Program(Structure, c_name="sis_program"):
    """``struct sis_program``: ops over registers, run in one call."""

    _fields_: ClassVar[Any] = [
        ("version", c_uint32), ("n_ops", c_uint32), ("n_registers", c_uint32), ("n_out_cols", c_uint32),
        ("ops", c_void_p), ("registers", c_void_p), ("apart", c_void_p),
    ]  # fmt: skip


class Group(Structure, c_name="sis_group"):
    """The rows of one sequence within a step."""

    _fields_: ClassVar[Any] = [
        ("pages", c_void_p), ("first", c_uint32), ("n_rows", c_uint32), ("length", c_uint32), ("reserved", c_uint32),
    ]  # fmt: skip


class Table(Structure, c_name="sis_table"):
    """Where one kind of state lies in a step."""

    _fields_: ClassVar[Any] = [("slots", c_void_p), ("groups", c_void_p)]


class KV(Structure, c_name="sis_kv"):
    """Where the pages of one layer begin."""

    _fields_: ClassVar[Any] = [("base", c_void_p), ("page_bytes", c_uint64)]


class Rotation(Structure, c_name="sis_rotation"):
    """A step's cosines and sines."""

    _fields_: ClassVar[Any] = [("cos", c_void_p), ("sin", c_void_p)]


class Best(Structure, c_name="sis_best"):
    """What a greedy text needs of a row of logits."""

    _fields_: ClassVar[Any] = [("token", c_uint32), ("highest", c_float), ("lowest", c_float)]


class Step(Structure, c_name="sis_step"):
    """Everything that changes from step to step."""

    _fields_: ClassVar[Any] = [
        *((name, c_uint32) for name in (
            "n", "n_out", "n_groups", "page_size", "kv_type", "n_threads", "flags", "reserved",
        )),
        *((name, c_void_p) for name in (
            "tokens", "hidden", "out", "positions", "outputs", "tables", "kv", "rotations", "watch", "best",
            "workspace",
        )),
        ("workspace_bytes", c_uint64), ("cpus", c_void_p),
    ]  # fmt: skip


class MultiStepState(Structure, c_name="sis_multi_step"):
    """How far a step of one row goes on, and how far it came."""

    _fields_: ClassVar[Any] = [
        ("n", c_uint32), ("n_tables", c_uint32), ("n_ends", c_uint32), ("n_run", c_uint32), ("ends", c_void_p),
    ]  # fmt: skip


STRUCTURES: tuple[type[Structure], ...] = (
    Rows, LinearObject, Kind, Unpacked, Memory, Place, Weight, Experts, Register, Op, Program, Group, Table, KV,
    Rotation, Best, Step, MultiStepState,
)  # fmt: skip

# Functions: what they return, and their arguments. Addresses go over as plain integers: an argument of type ndpointer
# costs twelve times as much. What is called for every step takes `ctypes.byref` of a record, which needs no check here.
PROTOTYPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sis_program_version": (c_uint32, {}),
    "sis_isa": (ctypes.c_char_p, {}),
    "sis_isa_note": (ctypes.c_char_p, {}),
    "sis_struct_size": (c_uint64, {"index": c_uint32}),
    "sis_tile_bytes": (c_uint64, {"format": c_uint32, "n_rows": c_uint64, "n_cols": c_uint64}),
    "sis_pack": (None, {"weight": c_void_p, "tiles": c_void_p, "n_threads": c_uint32}),
    "sis_kind": (c_uint32, {"format": c_uint32, "kind": c_void_p}),
    "sis_pack_unpacked": (
        None,
        {"format": c_uint32, "rows": c_void_p, "tiles": c_void_p, "n_threads": c_uint32},
    ),
    "sis_replace": (None, {"weight": c_void_p, "by": c_void_p}),
    "sis_workspace": (c_uint64, {"program": POINTER(Program), "step": POINTER(Step)}),
    "sis_arrange": (c_uint64, {"n": c_uint32, "bytes": c_void_p, "apart": c_void_p, "at": c_void_p}),
    "sis_run": (ctypes.c_int32, {"program": POINTER(Program), "step": POINTER(Step)}),
    "sis_multi_step": (
        ctypes.c_int32,
        {"program": POINTER(Program), "step": POINTER(Step), "more": POINTER(MultiStepState)},
    ),
    "sis_read": (c_uint64, {"data": c_void_p, "bytes": c_uint64, "n_threads": c_uint32}),
    "sis_map_file": (None, {"data": c_void_p, "bytes": c_uint64, "stop": c_void_p}),
    "sis_map_memory": (None, {"data": c_void_p, "bytes": c_uint64, "stop": c_void_p}),
    "sis_guard": (c_uint64, {"data": c_void_p, "bytes": c_uint64}),
    "sis_unguard": (None, {"guard": c_uint64}),
    "sis_guard_hit": (c_uint32, {"guard": c_uint64}),
    "sis_guard_hits": (c_uint64, {}),
}
