"""The rung `amx`: with its tiles emulated in C, and on processors that have some with those.

Nothing here says anything about speed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.native import Library, abi
from sis_core.backends.row_by_row import RowByRow
from sis_core.quant import F16Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Batch
from sis_core.testing import check_backend
from sis_core.testing.kernels.guards import GUARD, between_guards
from sis_core.testing.kernels.networks import check_passing
from sis_core.testing.kernels.unpacked import check_end_of_tiles, linear_of, packed, random_unpacked, some_columns
from sis_core.testing.kernels.weights import EACH_QUANTIZED, QUANTIZED, extreme_rows, random_rows
from sis_core.testing.networks import VARIANTS, random_network, with_format

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the rung amx is for Linux"),
    pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang, which builds, is not installed"),
]

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "plugins" / "x86"
COMPILE = [
    "-target", "x86_64-linux-gnu.2.17", "-std=c11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=on",
    "-fno-math-errno", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'sis_core' / 'include'}", f"-I{ROOT / 'native'}",
]  # fmt: skip

REGISTRY = Registry.load()
FLOATS = ("F32", "F16", "BF16")
FROM = 17  # rows, as in amx.c
FROM_FLOATS = 16


def units() -> list[tuple[Path, str]]:
    config = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))
    listed = config["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["units"]
    return [((ROOT if source.startswith("native/") else PLUGIN) / source, cpu) for source, cpu in listed]


def zig(*args: object) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with emulated tiles, for processors without any."""
    folder = tmp_path_factory.mktemp("amx")
    objects = []
    for path, cpu in units():
        objects.append(folder / f"{path.stem}.o")
        without_tiles = re.sub(r"\+amx_\w+", "", cpu).replace("+avxvnni", "+avx512vnni+avx512vl")
        # zig remembers the other units from their installation
        define = ["-DSIS_EMULATED"] if path.stem == "dispatch" or without_tiles != cpu else []
        zig(*COMPILE, *define, f"-mcpu={without_tiles}", "-c", path, "-o", objects[-1])
    zig("-target", "x86_64-linux-gnu.2.17", "-shared", *objects, "-o", folder / "libsis.so")
    return folder / "libsis.so"


Load = Callable[..., Library]


def loader(path: Path, folder: Path) -> Load:
    """Loads copies of a library, each of which looks at these variables at that moment."""

    def load(**variables: str) -> Library:
        copy = folder / f"libsis{len(list(folder.iterdir()))}.so"
        shutil.copy(path, copy)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("SIS_ISA", "SIS_TEST_FEATURES"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            return Library(copy)

    return load


@pytest.fixture(scope="module")
def emulated(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Load:
    load = loader(built, tmp_path_factory.mktemp("emulated"))
    if (found := load().isa_name) != "amx":
        pytest.skip(f"amx needs AVX-512 VNNI and BF16 beside its tiles; this machine has {found}")
    return load


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Load:
    load = loader(X86Backend().library().path, tmp_path_factory.mktemp("real"))
    if (found := load().isa_name) != "amx":
        pytest.skip(f"this machine has no tiles, or may not use them: its best is {found}")
    return load


HAS_TILES = X86Backend().idle_reason() is None and X86Backend().library().isa_name == "amx"
EMULATED = pytest.param("emulated", marks=pytest.mark.full) if HAS_TILES else "emulated"


@pytest.fixture(scope="module", params=[EMULATED, "real"])
def load(request: pytest.FixtureRequest) -> Load:
    found: Load = request.getfixturevalue(request.param)
    return found


def backend_of(library: Library) -> X86Backend:
    class Forced(X86Backend):
        def library(self) -> Library:
            return library

    return Forced()


@pytest.fixture(scope="module")
def backend(load: Load) -> X86Backend:
    """The backend on the rung amx."""
    return backend_of(load())


@pytest.fixture(scope="module")
def lower(load: Load) -> X86Backend:
    """The backend on the rung below."""
    return backend_of(load(SIS_ISA="avx512_vnni"))


def format_of(name: str) -> QuantFormat:
    found = REGISTRY.find("quant_formats", name)
    assert isinstance(found, QuantFormat)
    return found


def random_weight(name: str, n_rows: int, n_cols: int, random: np.random.Generator) -> Weight:
    """Random bytes with sane scales; for floats, random values."""
    format = format_of(name)
    raw = random_rows(format, n_rows, n_cols, random)
    return Weight.of("w", format, (n_rows, n_cols), lambda: raw.reshape(-1))


def to_bfloat(x: F32) -> F32:
    """The nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def to_bfloat_away(x: F32) -> F32:
    """The nearest bfloat16, ties away from zero: what weights become."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)


def bound(backend: X86Backend, weight: Weight, **options: Any) -> Callable[[F32], F32]:
    linear = backend.linear(weight, BackendOptions(**options))
    assert linear is not None
    return linear


def check(found: F32, x: F32, weight: Weight) -> None:
    """Hold a product to float64, element by element, within a part of the sum of the products' magnitudes.

    Integer weights and their activations are in bfloat16, whose products float32 holds exactly: only its sums differ.
    Floats are as they are: rounding the second half of either, and leaving out the fourth product, costs 2^-16 each.
    """
    w, part = weight.dequantize(), 3 * 2.0**-16
    if weight.format.name in QUANTIZED:
        x, w, part = to_bfloat(x), to_bfloat_away(w), 2.0**-20
    left, right = x.astype(np.float64), w.astype(np.float64).T
    excess = np.abs(found - left @ right) - part * (np.abs(left) @ np.abs(right))
    assert excess.max() <= 0, f"{weight!r} times {len(x)} rows: {excess.max():.2g} too far off at {excess.argmax()}"


@pytest.mark.parametrize("name", [*FLOATS, *EACH_QUANTIZED])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
def test_linears(backend: X86Backend, name: str, pack: bool) -> None:
    random = np.random.default_rng(1)
    for n_rows, n_cols, n in ((1, 256, FROM), (16, 256, 31), (37, 512, 33), (130, 1280, 70), (100, 768, 49)):
        weight = random_weight(name, n_rows, n_cols, random)
        x = random.standard_normal((n, n_cols)).astype(np.float32)
        check(bound(backend, weight, pack=pack)(x), x, weight)


def test_tiles_that_no_format_of_ggufs_has(backend: X86Backend) -> None:
    """Weights and activations are off by 2^-8 of themselves at most, together and rounded once more."""
    library, random, kind = backend.library(), np.random.default_rng(3), abi.Kind()
    for name, number in abi.TILES_ALONE.items():
        library.kind(number, ctypes.addressof(kind))
        n_cols = some_columns(kind)
        x = random.standard_normal((FROM, n_cols)).astype(np.float32)
        rows, values = random_unpacked(kind, 37, n_cols, random)
        bound = packed(library, number, rows)
        found = linear_of(library, bound)(x)
        excess = np.abs(found - x @ values.T) - 2.0**-8 * (np.abs(x) @ np.abs(values).T)
        assert excess.max() <= 0, name


def test_nothing_behind_the_last_tile_is_read(backend: X86Backend) -> None:
    """A pipeline that goes on for three turns after the last tile has no tables to load there."""
    check_end_of_tiles(backend.library())


@pytest.mark.parametrize("name", [*FLOATS, *EACH_QUANTIZED])
def test_every_number_of_rows(backend: X86Backend, lower: X86Backend, name: str) -> None:
    """From FROM on a row gives the same bits for any number of rows; below, and where that was asked for, they are
    the lower rung's."""
    random = np.random.default_rng(2)
    weight = random_weight(name, 35, 512, random)
    x = random.standard_normal((70, 512)).astype(np.float32)
    linear, below = bound(backend, weight, n_threads=1), bound(lower, weight, n_threads=1)
    whole, apart = linear(x), below(x)
    check(whole, x, weight)
    assert not np.array_equal(whole, apart)
    alone = bound(backend, weight, n_threads=1, batch_invariant=True)
    least = FROM_FLOATS if name in FLOATS else FROM
    for n in range(1, 71):
        assert np.array_equal(linear(x[:n]), (whole if n >= least else apart)[:n]), n
        assert np.array_equal(alone(x[:n]), apart[:n]), n


@pytest.mark.parametrize("n_cols", [1, 2, 3, 17, 31, 33, 63, 100, 131])
@pytest.mark.parametrize("name", FLOATS)
def test_odd_widths(backend: X86Backend, name: str, n_cols: int) -> None:
    random = np.random.default_rng(3)
    weight = random_weight(name, 19, n_cols, random)
    x = random.standard_normal((37, n_cols)).astype(np.float32)
    check(bound(backend, weight)(x), x, weight)


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
@pytest.mark.parametrize("name", ["F16", "Q4_0"])
def test_rows_and_columns_cut(backend: X86Backend, name: str, pack: bool) -> None:
    """Activations larger than what a job keeps in the cache are taken in parts, of rows and of k: no bit changes."""
    random = np.random.default_rng(4)
    weight = random_weight(name, 330, 3008, random)
    x = random.standard_normal((290, 3008)).astype(np.float32)
    linear = bound(backend, weight, pack=pack, n_threads=1)
    whole = linear(x)
    check(whole, x, weight)
    for first, last in ((0, 40), (90, 130), (250, 290)):
        assert np.array_equal(linear(x[first:last]), whole[first:last])


@pytest.mark.parametrize("name", EACH_QUANTIZED)
def test_extreme_blocks(backend: X86Backend, name: str) -> None:
    """Every byte the same, from 0x00 to 0xff, and scales of one."""
    format = format_of(name)
    for raw in extreme_rows(format, 16, 256):
        weight = Weight.of("w", format, (16, 256), raw.reshape(-1).copy)
        ones = np.ones((FROM, 256))
        for x in (ones, -ones, np.where(np.arange(ones.size).reshape(ones.shape) % 3, 1, -1)):
            rows = x.astype(np.float32)
            check(bound(backend, weight)(rows), rows, weight)


@pytest.mark.parametrize("name", [*FLOATS, *EACH_QUANTIZED])
def test_poison_stays_in_its_row(backend: X86Backend, name: str) -> None:
    random = np.random.default_rng(5)
    linear = bound(backend, random_weight(name, 20, 256, random))
    x = random.standard_normal((40, 256)).astype(np.float32)
    clean = linear(x)
    for row in (2, 17, 39):
        for value in (np.nan, np.inf, -np.inf):
            damaged = x.copy()
            damaged[row, 100] = value
            found = linear(damaged)
            assert not np.isfinite(found[row]).any()
            assert np.array_equal(np.delete(found, row, 0), np.delete(clean, row, 0))


@pytest.mark.parametrize("name", FLOATS)
def test_poisoned_weights_stay_in_their_column(backend: X86Backend, name: str) -> None:
    random = np.random.default_rng(6)
    values = random.standard_normal((20, 64)).astype(np.float32)
    x = random.standard_normal((33, 64)).astype(np.float32)
    for value in (np.nan, np.inf):
        values[7, 3] = value
        found = bound(backend, Weight.from_array("w", values, format_of(name)))(x)
        assert not np.isfinite(found[:, 7]).any()
        assert np.isfinite(np.delete(found, 7, 1)).all()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q6_K"])
def test_scales_that_are_no_numbers(backend: X86Backend, name: str) -> None:
    """Also those whose bits are all ones: rounding upwards would make a zero of them."""
    random = np.random.default_rng(7)
    format = format_of(name)
    raw = random_rows(format, 20, 256, random).reshape(20, -1, format.type_size)
    at = slice(-2, None) if name == "Q6_K" else slice(0, 2)
    x = random.standard_normal((FROM, 256)).astype(np.float32)
    for half in (0x7FFF, 0xFFFF, 0x7E00, 0x7C00):
        damaged = raw.copy()
        damaged[7, 0, at] = np.array([half], "<u2").view(np.uint8)
        found = bound(backend, Weight.of("w", format, (20, 256), damaged.reshape(-1).copy))(x)
        assert not np.isfinite(found[:, 7]).any()
        assert np.isfinite(np.delete(found, 7, 1)).all()


DECODE = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_float),
)  # fmt: skip


@DECODE
def decode_eighths(rows: Any, row_bytes: int, n_rows: int, n_cols: int, out: Any) -> None:
    source = np.ctypeslib.as_array(rows, (n_rows * row_bytes,)).reshape(n_rows, row_bytes)[:, :n_cols]
    np.ctypeslib.as_array(out, (n_rows * n_cols,))[:] = (source.view(np.int8) / np.float32(8)).reshape(-1)


class Eighths(QuantFormat):
    """A stranger's format with a decoder: signed bytes in eighths."""

    name, block_size, type_size = "EIGHTHS", 1, 1

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return rows.view(np.int8).astype(np.float32) / np.float32(8)

    @property
    def decoder(self) -> int | None:
        return ctypes.cast(decode_eighths, ctypes.c_void_p).value


def test_a_format_that_is_decoded_on_the_fly(backend: X86Backend) -> None:
    random = np.random.default_rng(7)
    raw = random.integers(0, 256, (85, 130), dtype=np.uint8)
    weight = Weight.of("w", Eighths(), (85, 130), lambda: raw.reshape(-1))
    x = random.standard_normal((50, 130)).astype(np.float32)
    check(bound(backend, weight)(x), x, weight)


def test_nothing_outside_the_result_is_written(backend: X86Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results and workspaces lie between guards full of NaN, and hold nothing but NaN before."""
    guards = between_guards(monkeypatch)
    random = np.random.default_rng(8)
    for name in ("F16", "BF16", *QUANTIZED):
        for pack in (True, False):
            weight = random_weight(name, 41, 512, random)
            for n in (FROM, 33, 70):  # one thread: its scratch ends where the workspace does
                x = random.standard_normal((n, 512)).astype(np.float32)
                check(bound(backend, weight, pack=pack, n_threads=1)(x), x, weight)
    for variant in VARIANTS:
        network = random_network(with_format(variant, F16Format()))
        forward = bind(network, [backend], BackendOptions(n_threads=2))
        cache = forward.new_cache("f16", 96)
        for start, stop in ((0, 17), (17, 18), (18, 63)):
            batch = Batch.of(list(range(start, stop)), position=start, outputs=range(stop - start))
            assert np.isfinite(forward.step(batch, cache).values).all(), variant.name
    assert len(guards) > 100
    for whole, n_bytes in guards:
        assert (whole[:GUARD] == 0xFF).all()
        assert (whole[GUARD + n_bytes :] == 0xFF).all()


def test_every_network(backend: X86Backend) -> None:
    """In float formats to the tolerance of float32: the split into halves keeps it."""
    check_backend(backend)


def test_every_network_in_q8_0(backend: X86Backend) -> None:
    # Steps of few rows are the lower rung's, with activations in 8 bits: the tolerance is that rung's.
    check_backend(backend, formats=[format_of("Q8_0")], tolerance=0.12)


def test_what_passes_from_op_to_op_changes_no_bits(backend: X86Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    check_passing(backend, VARIANTS, monkeypatch)


def test_results_do_not_depend_on_threads(backend: X86Backend) -> None:
    for variant in VARIANTS[:5]:
        network = random_network(with_format(variant, format_of("Q8_0")))
        found = []
        for n_threads in (1, 2, 3):
            forward = bind(network, [backend], BackendOptions(n_threads=n_threads))
            cache = forward.new_cache("f16", 192)
            forward.step(Batch.of(list(range(60)), outputs=[]), cache)
            batch = Batch.of(list(range(70)), position=60, outputs=range(0, 70, 2))
            found.append(forward.step(batch, cache).values)
        assert all(np.array_equal(found[0], other) for other in found[1:]), variant.name


def test_company_changes_nothing_where_that_was_asked(backend: X86Backend, lower: X86Backend) -> None:
    for variant in VARIANTS[:5]:
        network = random_network(with_format(variant, format_of("Q8_0")))
        ids = np.random.default_rng(9).integers(0, network.n_vocab, 50)
        plain = bind(network, [backend], BackendOptions())
        asked = bind(network, [backend], BackendOptions(batch_invariant=True))
        assert not isinstance(asked, RowByRow)
        assert (plain.batch_invariant, asked.batch_invariant) == (False, True)
        found = {}
        for name, forward in {"plain": plain, "asked": asked}.items():
            cache = forward.new_cache("f16", 64)
            whole = forward.step(Batch.of(ids, outputs=range(50)), cache).values
            cache = forward.new_cache("f16", 64)
            parts = [forward.step(Batch.of(ids[:7], outputs=range(7)), cache).values]
            parts += [
                forward.step(Batch.of([t], position=i), cache).values for i, t in enumerate(ids.tolist()) if i > 6
            ]
            found[name] = whole, np.concatenate(parts)
        assert np.array_equal(*found["asked"]), variant.name
        assert not np.array_equal(*found["plain"]), variant.name
        below = bind(network, [lower], BackendOptions())
        values = below.step(Batch.of(ids, outputs=range(50)), below.new_cache("f16", 64)).values
        assert np.array_equal(values, found["asked"][0]), variant.name


REFUSED = "the system does not let this process use the tiles of AMX"
ABSENT = "SIS_ISA names instructions that this machine does not have"
EVERYTHING = "avx2 avx512_vnni avx512_bf16 amx permission"


@pytest.mark.parametrize(
    ("features", "wanted", "isa", "note"),
    [
        (EVERYTHING, "", "amx", ""),
        (EVERYTHING, "amx", "amx", "chosen by SIS_ISA"),
        (EVERYTHING, "avx512_vnni", "avx512_vnni", "chosen by SIS_ISA"),
        ("avx2 avx512_vnni avx512_bf16 amx", "", "avx512_bf16", REFUSED),
        ("avx2 avx512_vnni avx512_bf16 amx", "amx", "avx512_bf16", REFUSED),
        ("avx2 avx512_vnni avx512_bf16 amx", "avx2", "avx2", "chosen by SIS_ISA"),
        ("avx2 avx512_vnni avx512_bf16 permission", "", "avx512_bf16", ""),
        ("avx2 avx512_vnni avx512_bf16 permission", "amx", "avx512_bf16", ABSENT),
        ("avx2 avx512_vnni amx permission", "", "avx512_vnni", ""),
        ("avx2 amx permission", "", "avx2", ""),
        ("amx permission", "", "portable", ""),
    ],
)
def test_the_rung_that_is_chosen(emulated: Load, features: str, wanted: str, isa: str, note: str) -> None:
    library = emulated(SIS_TEST_FEATURES=features, SIS_ISA=wanted)
    assert (library.isa_name, library.isa_reason) == (isa, note)
    random = np.random.default_rng(10)
    weight = random_weight("Q4_0", 33, 256, random)
    x = random.standard_normal((20, 256)).astype(np.float32)
    found, wanted_values = bound(backend_of(library), weight)(x), x @ weight.dequantize().T
    np.testing.assert_allclose(found, wanted_values, rtol=0, atol=0.02 * np.abs(wanted_values).max())


def test_an_unknown_isa_is_said(emulated: Load) -> None:
    reason = "SIS_ISA is not one of portable, avx2, avx_vnni, avx512_vnni, avx512_bf16, amx"
    assert emulated(SIS_ISA="neon").isa_reason == reason


@pytest.mark.parametrize("name", EACH_QUANTIZED)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_avx_vnni_sums_the_same_integers_as_avx2(emulated: Load, name: str, rows: int) -> None:
    random = np.random.default_rng(rows)
    weight = random_weight(name, 37, 512, random)
    x = random.standard_normal((rows, 512)).astype(np.float32)
    known = emulated(SIS_ISA="avx_vnni")
    assert known.isa_name == "avx_vnni"
    found, wanted = (bound(backend_of(lib), weight)(x) for lib in (known, emulated(SIS_ISA="avx2")))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", [*FLOATS, *EACH_QUANTIZED])
def test_the_emulation_is_exact(emulated: Load, real: Load, name: str) -> None:
    random = np.random.default_rng(11)
    weight = random_weight(name, 40, 1280, random)
    x = random.standard_normal((40, 1280)).astype(np.float32)
    x *= 2.0 ** random.integers(-140, 40, x.shape)  # denormals as well
    found = [bound(backend_of(load()), weight)(x) for load in (emulated, real)]
    assert np.array_equal(*found)


def test_only_amx_uses_tiles(tmp_path: Path) -> None:
    """What is shipped: tile instructions in the units of amx and nowhere else."""
    if shutil.which("objdump") is None:
        pytest.skip("no objdump to look into the code")
    uses: dict[str, set[str]] = {}
    for path, cpu in units():
        compiled = tmp_path / f"{path.stem}.o"
        zig(*COMPILE, f"-mcpu={cpu}", "-c", path, "-o", compiled)
        code = subprocess.run(["objdump", "-d", compiled], check=True, capture_output=True, text=True).stdout
        uses[path.stem] = set(re.findall(r"\s(tdp\w+|tile\w+|ldtilecfg)\s", code))
    wanted = {"ldtilecfg", "tileloadd", "tilezero", "tilestored", "tilerelease"}
    assert uses.pop("amx") == uses.pop("amx_attention") == wanted | {"tdpbf16ps"}
    assert uses.pop("amx_int8") == wanted | {"tdpbssd"}
    assert not any(uses.values()), uses
