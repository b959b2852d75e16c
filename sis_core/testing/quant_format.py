"""`check_quant_format`: what every quantisation format must keep to, whatever it stores."""

from __future__ import annotations

import ctypes
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing.declared_layout import check_layout
from sis_core.testing.declared_sides import check_sides
from sis_core.testing.encoder_mistakes import mistake_of, off_by_one, order_or_sign, size_of, unused_codes
from sis_core.testing.fused_linear import check_fused_linear

N_ROWS = 7  # odd: a native decoder that works in pairs of rows has one left over
ORDINARY = 6e4  # magnitudes up to here must stay finite: they fit even into binary16
DECODER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


def check_quant_format(format: QuantFormat, /, *, max_error: float | None = None) -> None:
    """Hold a format to the contract of `sis_core.quant`.

    Rows have 1, 3 and ``512 // block_size`` blocks, at least two: whatever a format stores for a row beside its blocks
    must fit such rows, and those of other lengths are refused by ``row_bytes`` with a FormatError. ``bits_per_weight``
    is that of a row of 64 blocks, within 1 %. Values that come out of a format are encoded again: a second round trip
    may not move them further than the first one moved the original, since a file may be quantised twice.

    Args:
        max_error: the largest root mean square error, relative to that of the values, for normally distributed values;
            by default what 2 bits fewer than the format's ``bits_per_weight`` could reach, and never less than 1/256.
            Formats that are coarse on purpose must say it: those of few mantissa bits, whose error does not fall with
            their bits, those that drop weights.

    Raises:
        AssertionError: naming the format, the fault, and the case in which it showed.
    """
    check = _Check(format)
    check.declaration()
    check.decoding()
    if format.can_quantize:
        check.encoding()
        check.faithfulness(max_error)
        check.importance()
    else:
        check.refuses_to_encode()
    check.layout()
    check.native_decoder()
    check_fused_linear(format, check.rows, check.fail)


class _Check:
    def __init__(self, format: QuantFormat) -> None:
        self.format = format
        self.name = getattr(format, "name", type(format).__name__)
        self.random = np.random.Generator(np.random.Philox(11))

    def fail(self, fault: str, case: str = "") -> NoReturn:
        raise AssertionError(f"format {self.name}: {fault}{f' ({case})' if case else ''}")

    @contextmanager
    def guarded(self, verb: str, case: str) -> Iterator[None]:
        """Name the verb in whatever goes wrong inside; numpy's warnings are faults."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                yield
            except (FormatError, AssertionError):
                raise
            except Warning as warning:
                self.fail(f"{verb} warns: {warning}; if that is meant, put np.errstate around it", case)
            except Exception as error:
                if "read-only" in str(error):
                    self.fail(f"{verb} writes to its input", case)
                self.fail(f"{verb} fails: {type(error).__name__}: {error}", case)

    # -- the two verbs, checked for what a single call shows --------------------------------------------------------

    def decode(self, rows: U8, n_cols: int, case: str) -> F32:
        before = rows.copy()
        given = rows.view()
        given.flags.writeable = False
        with self.guarded("dequantize", case):
            values: Any = self.format.dequantize(given, n_cols)
        self.result("dequantize", values, np.float32, (len(rows), n_cols), case)
        if not np.array_equal(before, rows):
            self.fail("dequantize writes to its input", case)
        return values  # type: ignore[no-any-return]

    def encode(self, values: F32, case: str, importance: F32 | None = None) -> U8:
        before = values.copy()
        given = values.view()
        given.flags.writeable = False
        verb = "quantize" if importance is None else "quantize_weighted"
        with self.guarded(verb, case):
            if importance is None:
                rows: Any = self.format.quantize(given)
            else:
                rows = self.format.quantize_weighted(given, importance)
        self.result(verb, rows, np.uint8, (len(values), self.format.row_bytes(values.shape[1])), case)
        if not np.array_equal(before.view(np.uint32), values.view(np.uint32)):
            self.fail(f"{verb} writes to its input", case)
        return rows  # type: ignore[no-any-return]

    def result(self, verb: str, found: Any, dtype: type, shape: tuple[int, int], case: str) -> None:
        if not isinstance(found, np.ndarray):
            self.fail(f"{verb} returns {type(found).__name__}, not an array", case)
        if found.dtype != dtype:
            self.fail(f"{verb} returns {found.dtype}, not {np.dtype(dtype)}", case)
        if found.shape != shape:
            self.fail(f"{verb} returns the shape {found.shape}, not {shape}", case)

    # -- what is declared -------------------------------------------------------------------------------------------

    def declaration(self) -> None:
        format = self.format
        if (
            not isinstance(getattr(format, "name", None), str)
            or not format.name
            or format.name.split() != [format.name]
        ):
            self.fail("has no name, or one with spaces")
        if not (format.type_id is None or isinstance(format.type_id, int)):
            self.fail(f"its type_id is {format.type_id!r}, neither a number nor None")
        if format.block_size < 1 or format.type_size < 1:
            self.fail(f"declares blocks of {format.block_size} values in {format.type_size} bytes")
        for n_cols in [0, -format.block_size, *([format.block_size + 1] if format.block_size > 1 else [])]:
            try:
                format.row_bytes(n_cols)
            except FormatError:
                continue
            self.fail(f"row_bytes accepts a row of {n_cols} values, which is not a whole number of blocks")
        n_cols = 64 * format.block_size
        bits = 8 * format.row_bytes(n_cols) / n_cols
        if not 0.99 * bits <= format.bits_per_weight <= 1.01 * bits:
            self.fail(f"declares {format.bits_per_weight:g} bits a weight, but its rows take {bits:g}")
        self.versions()
        check_sides(format, self.fail)
        if isinstance(format, BlockFormat):
            self.blocks(format)

    def versions(self) -> None:
        """Its own version, one that is not made yet, and those before it."""
        own: Any = self.format.version
        if isinstance(own, bool) or not isinstance(own, int) or own < 1:
            self.fail(f"its version is {own!r}, not a number from 1 on")
        if self.format.of_version(own) is not self.format:
            self.fail(f"of_version({own}), its own, is not itself")
        for version in range(1, own + 2):
            try:
                with self.guarded("of_version", f"version {version}"):
                    found: Any = self.format.of_version(version)
            except FormatError:
                continue
            if version > own:
                self.fail(f"of_version accepts {version}, which is newer than its own")
            if not isinstance(found, QuantFormat) or found.name != self.format.name or found.version != version:
                self.fail(f"of_version({version}) is {found!r}, not a format of that name and version")

    def blocks(self, format: BlockFormat) -> None:
        """The methods that an author writes, before `BlockFormat` makes rows of their results."""
        data = self.bytes(5, format.block_size)
        with self.guarded("dequantize_blocks", "random bytes"), np.errstate(over="ignore", invalid="ignore"):
            values = format.dequantize_blocks(data)
        self.result("dequantize_blocks", values, np.float32, (5, format.block_size), "random bytes")
        if format.can_quantize:
            with self.guarded("quantize_blocks", "normal values"), np.errstate(over="ignore", invalid="ignore"):
                found = format.quantize_blocks(self.normal(5, format.block_size))
            if isinstance(found, np.ndarray) and found.ndim == 2 and found.shape[1] != format.type_size:
                self.fail(
                    f"quantize_blocks makes {found.shape[1]} bytes a block, but type_size says {format.type_size}"
                )
            self.result("quantize_blocks", found, np.uint8, (5, format.type_size), "normal values")

    # -- inputs -----------------------------------------------------------------------------------------------------

    @property
    def widths(self) -> list[int]:
        return [n * self.format.block_size for n in (1, 3, max(2, 512 // self.format.block_size))]

    def normal(self, n_rows: int, n_cols: int) -> F32:
        return self.random.standard_normal((n_rows, n_cols), np.float32)

    def bytes(self, n_rows: int, n_cols: int) -> U8:
        return self.random.integers(0, 256, (n_rows, self.format.row_bytes(n_cols)), np.uint8)

    def rows(self, n_rows: int, n_cols: int) -> U8:
        """Rows as they are in files: of blocks with very different scales, if the format can make them."""
        if not self.format.can_quantize:
            return self.bytes(n_rows, n_cols)
        return self.encode(
            self.normal(n_rows, n_cols) * self.scales(n_rows, n_cols), "blocks of different scales"
        ).copy()

    def scales(self, n_rows: int, n_cols: int) -> F32:
        shape = (n_rows, n_cols // self.format.block_size)
        exponents = self.random.integers(-6, 7, shape)
        return np.repeat(np.float32(2) ** exponents, self.format.block_size, axis=1).astype(np.float32)

    def finite(self, n_cols: int) -> Iterator[tuple[str, F32]]:
        """Rows without NaN or infinity whose values are at most `ORDINARY`."""
        normal = self.normal(N_ROWS, n_cols)
        yield "normal values", normal
        for scale in (1e-3, 1e-6, 1e-12, 1e-30, 1e4):
            yield f"normal values times {scale:g}", normal * np.float32(scale)
        yield "one large value a row", _with(normal, n_cols // 2, 5e4)
        yield "one large negative value a row", _with(normal, -1, -5e4)
        yield "only positive values", np.abs(normal) + np.float32(0.1)
        yield "only negative values", -np.abs(normal) - np.float32(0.1)
        yield "halves", np.round(normal * 8) / np.float32(2)
        yield "equal values", np.full((N_ROWS, n_cols), 0.37, np.float32)
        yield "equal negative values", np.full((N_ROWS, n_cols), -ORDINARY, np.float32)
        yield "two values", np.where(normal > 0, np.float32(3), np.float32(-2))
        yield "zeros", np.zeros((N_ROWS, n_cols), np.float32)
        yield "negative zeros", -np.zeros((N_ROWS, n_cols), np.float32)
        yield "denormals", normal * np.float32(1e-40)
        yield "the least denormal", np.full((N_ROWS, n_cols), 1e-45, np.float32)
        yield "one value among zeros", _with(np.zeros_like(normal), 0, -2.5)

    # -- decoding ---------------------------------------------------------------------------------------------------

    def decoding(self) -> None:
        for n_cols in self.widths:
            self.decode(self.bytes(N_ROWS, n_cols), n_cols, f"random bytes, {n_cols} columns")
            rows, others = self.rows(N_ROWS, n_cols), self.rows(N_ROWS, n_cols)
            decode = partial(self.decode, n_cols=n_cols, case=f"rows of {n_cols} values")
            self.repeatable("dequantize", decode, rows, others)
            self.neighbours(rows, others)
            self.independent("dequantize", decode, rows)
            self.strided("dequantize", decode, rows)
        n_cols = 2 * self.format.block_size
        rows = self.rows(N_ROWS, n_cols)
        self.refuses("dequantize", "ignores n_cols: it accepts rows of another length", rows, self.format.block_size)
        self.refuses("dequantize", "accepts rows of float32", rows.astype(np.float32), n_cols)
        self.refuses("dequantize", "accepts a vector", rows[0], n_cols)
        several = [self.rows(3, n_cols) for _ in range(4)]
        self.threads("dequantize", lambda r: self.format.dequantize(r, n_cols), several)

    def neighbours(self, rows: U8, others: U8) -> None:
        """In a format of blocks, the bytes of a block decide its values and no others."""
        if not isinstance(self.format, BlockFormat):
            return
        blocks, size = rows.reshape(-1, self.format.type_size), self.format.block_size
        n_cols = blocks.size // len(rows) // self.format.type_size * size
        before = self.decode(rows, n_cols, "ordinary rows").reshape(-1, size).copy()
        for i in range(min(5, len(blocks))):
            changed = blocks.copy()
            changed[i] = others.reshape(blocks.shape)[i]
            after = self.decode(changed.reshape(rows.shape), n_cols, "one block changed").reshape(-1, size)
            moved = [j for j in range(len(blocks)) if j != i and not _same(before[j], after[j])]
            if moved:
                self.fail(f"dequantize: block {moved[0]} uses bytes of block {i}, such as its scale")

    def repeatable(self, verb: str, run: Callable[[Any], Any], given: Any, other: Any) -> None:
        first = run(given)
        kept = first.copy()
        if not _same(kept, run(given)):
            self.fail(f"{verb} is not deterministic: the same input gives another result the second time")
        run(other)
        if not _same(kept, first):
            self.fail(f"{verb} returns the same memory each time: a later call changes an earlier result")
        if not _same(kept, run(given)):
            self.fail(f"{verb} keeps state between calls: another input in between changes the result")

    def independent(self, verb: str, run: Callable[[Any], Any], given: Any) -> None:
        whole = run(given).copy()
        order = self.random.permutation(len(given))
        for i in range(len(given)):
            if not _same(run(given[i : i + 1])[0], whole[i]):
                self.fail(f"{verb}: row {i} alone gives another result than among {len(given)} rows")
        if not _same(run(given[order]), whole[order]):
            self.fail(f"{verb}: rows in another order give other results")

    def strided(self, verb: str, run: Callable[[Any], Any], given: Any) -> None:
        whole = run(given).copy()
        wide = np.zeros((len(given), given.shape[1] * 3), given.dtype)
        wide[:, given.shape[1] : 2 * given.shape[1]] = given
        cut = wide[:, given.shape[1] : 2 * given.shape[1]]
        if not _same(run(cut), whole):
            self.fail(f"{verb}: rows cut out of longer rows (strided) give another result than contiguous ones")
        if not _same(run(given[::-1]), whole[::-1]):
            self.fail(f"{verb}: rows backwards in memory give another result than contiguous ones{self.unsorted()}")
        unaligned = np.empty(given.nbytes + 1, np.uint8)[1:].view(given.dtype).reshape(given.shape)
        unaligned[:] = given
        if not _same(run(unaligned), whole):
            self.fail(f"{verb}: rows at an odd address give another result")

    def unsorted(self) -> str:
        """A likely reason for what depends on the order of values."""
        table = self.format.layout.table if self.format.layout else None
        ascends = not isinstance(table, tuple) or list(table) == sorted(table)
        return "" if ascends else "; the layout's table does not ascend, as np.searchsorted needs its levels to"

    def refuses(self, verb: str, fault: str, *arguments: Any) -> None:
        try:
            getattr(self.format, verb)(*arguments)
        except FormatError:
            return
        except Exception as error:
            fault = f"{fault}, failing with {type(error).__name__} instead of FormatError"
        self.fail(f"{verb} {fault}; BlockFormat, check_rows and check_values refuse it")

    def threads(self, verb: str, run: Callable[[Any], Any], several: list[Any]) -> None:
        """Many threads at once, which Python switches between as often as it can."""
        wanted = [run(given).copy() for given in several]
        faults: list[str] = []
        start = threading.Barrier(len(several))

        def work(i: int) -> None:
            start.wait()
            for _ in range(60):
                try:
                    same = _same(run(several[i]), wanted[i])
                except Exception as error:
                    faults.append(f"{type(error).__name__}: {error}")
                    return
                if not same:
                    faults.append("results of one thread turn up in another")
                    return

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            workers = [threading.Thread(target=work, args=(i,)) for i in range(len(several))]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            sys.setswitchinterval(interval)
        if faults:
            self.fail(f"{verb} is not thread-safe: {faults[0]}")

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encoding(self) -> None:
        for n_cols in self.widths:
            values = self.normal(N_ROWS, n_cols) * self.scales(N_ROWS, n_cols)
            encode = partial(self.encode, case=f"rows of {n_cols} values")
            self.repeatable("quantize", encode, values, values * np.float32(50))
            self.independent("quantize", encode, values)
            self.strided("quantize", encode, values)
            for case, rows in self.finite(n_cols):
                self.stays_finite(rows.astype(np.float32), case)
        self.extremes()
        n_cols = 2 * self.format.block_size
        values = self.normal(N_ROWS, n_cols)
        self.refuses("quantize", "accepts float64", values.astype(np.float64))
        self.refuses("quantize", "accepts a vector", values[0])
        if self.format.block_size > 1:
            self.refuses("quantize", "accepts rows that are not whole blocks", values[:, 1:].copy())
        several = [self.normal(3, n_cols) for _ in range(4)]
        self.threads("quantize", self.format.quantize, several)

    def stays_finite(self, values: F32, case: str) -> None:
        rows = self.encode(values, case)
        decoded = self.decode(rows, values.shape[1], case)
        if not np.isfinite(decoded).all():
            self.name_mistake(rows, values, self.explained(self.default_bound()), case)
            self.fail(f"turns finite values into {decoded[~np.isfinite(decoded)][0]}", case)
        largest = np.abs(values).max(axis=1)
        if (np.abs(decoded).max(axis=1) > 2 * largest + 1e-5).any():
            self.name_mistake(rows, values, self.explained(self.default_bound()), case)
            found = float(np.abs(decoded).max())
            self.fail(f"turns values of at most {largest.max():g} into {found:g}", case)
        if case.endswith("zeros") and case != "one value among zeros" and decoded.any():
            normal = self.normal(*values.shape)
            encoded = self.encode(normal, "normal values")
            self.name_mistake(encoded, normal, self.explained(self.default_bound()), "normal values")
            self.fail(f"turns zeros into {decoded[decoded != 0][0]:g}", case)

    def extremes(self) -> None:
        """Values that no format need keep: they must not stop it, nor reach the rows beside them."""
        n_cols = self.widths[-1]
        values = self.normal(N_ROWS, n_cols)
        apart = self.decode(self.encode(values, "normal values"), n_cols, "normal values").copy()
        for extreme in (np.finfo(np.float32).max, -np.finfo(np.float32).max, np.nan, np.inf, -np.inf):
            spoilt = values.copy()
            spoilt[2, ::3] = extreme
            case = f"values of {extreme:g} in a row"
            try:
                decoded = self.decode(self.encode(spoilt, case), n_cols, case)
            except FormatError:
                continue
            rest = np.arange(N_ROWS) != 2
            if not _same(decoded[rest], apart[rest]):
                self.fail("quantize: a row changes the rows beside it", case)

    def refuses_to_encode(self) -> None:
        self.refuses("quantize", "works, but can_quantize is False", self.normal(2, self.format.block_size))

    # -- how well values are kept -----------------------------------------------------------------------------------

    def faithfulness(self, max_error: float | None) -> None:
        bound = max_error if max_error is not None else self.default_bound()
        n_cols = self.widths[-1]
        for case, values in (
            ("normal values", self.normal(64, n_cols)),
            ("normal values times 0.001", self.normal(64, n_cols) * np.float32(1e-3)),
            ("normal values times 1000", self.normal(64, n_cols) * np.float32(1e3)),
            ("blocks of different scales", self.normal(64, n_cols) * self.scales(64, n_cols)),
        ):
            rows = self.encode(values, case)
            decoded = self.decode(rows, n_cols, case)
            error = _relative(decoded - values, values)
            self.positions(values, decoded, case)
            if error > bound:
                self.diagnose(rows, values, decoded, bound, case)
                self.fail(self.too_coarse(error, max_error), case)
            if fault := unused_codes(self.format, rows, n_cols):
                self.fail(fault, case)
            again = self.decode(self.encode(decoded, "decoded values"), n_cols, "decoded values")
            if _relative(again - decoded, decoded) > max(error, 1e-6):
                self.fail(
                    "a second round trip moves the values further than the first one did: what it decodes must be "
                    "among the values that it can encode",
                    case,
                )

        self.one_sided()
        self.groups_apart()

    def groups_apart(self) -> None:
        """Groups of very different sizes in one block: small ones show a lower scale that is off by one."""
        layout, n_cols = self.format.layout, self.widths[-1]
        if layout is None or n_cols % layout.group:
            return
        sizes = np.float32(2) ** -self.random.integers(0, 6, (64, n_cols // layout.group))
        values = self.normal(64, n_cols) * np.repeat(sizes, layout.group, axis=1).astype(np.float32)
        case = "groups of different sizes"
        if fault := off_by_one(self.format, self.encode(values, case), values):
            self.fail(f"its layout and its encoder differ: {fault}", case)

    def too_coarse(self, error: float, max_error: float | None) -> str:
        if max_error is not None:
            return f"has an error of {error:.3g}; max_error allows {max_error:.3g}{self.unsorted()}"
        return (
            f"has an error of {error:.3g}; {self.format.bits_per_weight:g} bits should give {self.default_bound():.3g}"
            f"{self.unsorted()}. A format that is coarse on purpose says so: check_quant_format(format, max_error=…), "
            "or max_error = … in its QuantFormatSuite"
        )

    def one_sided(self) -> None:
        """Blocks whose values have one sign, or are all the same, which normal values never show."""
        normal = np.abs(self.normal(16, self.widths[-1])) + np.float32(0.1)
        for case, values in (
            ("only positive values", normal),
            ("only negative values", -normal),
            ("equal values", np.full_like(normal, 0.37)),
            ("equal negative values", np.full_like(normal, -2.5)),
        ):
            decoded = self.decode(self.encode(values, case), values.shape[1], case)
            kept = (decoded * values).sum(axis=1) / (values * values).sum(axis=1)
            if kept.min() < -0.05:
                self.fail("values lose their sign", case)
            if kept.min() < 0.05:
                self.fail("values come back as nothing", case)

    def positions(self, values: F32, decoded: F32, case: str) -> None:
        """No place in a block may be much worse than the others."""
        size = self.format.block_size
        squares = ((decoded - values) / np.abs(values).max()).reshape(-1, size) ** 2
        errors = squares.mean(axis=0)
        worst, usual = int(errors.argmax()), float(np.median(errors))
        if size > 1 and errors[worst] > 12 * usual and errors[worst] > 1e-4 * (values / np.abs(values).max()).var():
            self.fail(
                f"value {worst} of each block comes back wrong: {errors[worst] / usual:.0f} times the error of others",
                case,
            )

    def default_bound(self) -> float:
        return float(min(0.95, max(2.0 ** (2 - self.format.bits_per_weight), 2.0**-8)))

    def name_mistake(self, rows: U8, values: F32, wanted: float, case: str) -> None:
        """Fail with what the encoder did wrong by the layout, where that is a usual mistake."""
        if fault := mistake_of(self.format, rows, values, wanted):
            self.fail(f"its layout and its encoder differ: {fault}", case)

    @staticmethod
    def explained(bound: float) -> float:
        """The error at which a mistake explains what comes back: numbers that are not of the values have 1 or more."""
        return float(np.clip(2 * bound, 0.3, 0.7))

    def diagnose(self, rows: U8, values: F32, decoded: F32, bound: float, case: str) -> None:
        """Look for the usual mistakes behind an error that is too large."""
        size, wanted = self.format.block_size, self.explained(bound)
        if fault := order_or_sign(values, decoded, size, wanted):
            self.fail(fault, case)
        self.name_mistake(rows, values, wanted, case)
        if fault := size_of(values, decoded, size, wanted):
            self.fail(fault, case)

    def importance(self) -> None:
        n_cols = self.widths[-1]
        values = self.normal(16, n_cols)
        importance = np.where(np.arange(n_cols) % 3 == 0, np.float32(20), np.float32(1))
        for case, weights in (("uneven importance", importance), ("no importance", np.zeros(n_cols, np.float32))):
            rows = self.encode(values, case, weights)
            self.independent("quantize_weighted", partial(self.encode, case=case, importance=weights), values)
            decoded = self.decode(rows, n_cols, case)
            if not np.isfinite(decoded).all():
                self.fail(f"turns finite values into {decoded[~np.isfinite(decoded)][0]}", case)
        plain = self.decode(self.encode(values, "normal values"), n_cols, "normal values").copy()
        weighted = self.decode(self.encode(values, "uneven importance", importance), n_cols, "uneven importance")
        errors = [float((importance * (found - values) ** 2).sum()) for found in (plain, weighted)]
        if errors[1] > 1.02 * errors[0]:
            self.fail("importance makes the weighted error larger", f"{errors[1] / errors[0]:.3g} times")

    # -- native code ------------------------------------------------------------------------------------------------

    def layout(self) -> None:
        """The numbers that a declared layout finds are those that the decoder gives."""
        for n_cols in self.widths:
            check_layout(self.format, self.rows, n_cols, self.fail)

    def native_decoder(self) -> None:
        """The C function gives what `dequantize` gives, writes all of it and nothing else."""
        address = self.format.decoder
        if address is None:
            return
        function = DECODER(address)
        for n_cols in self.widths:
            row_bytes = self.format.row_bytes(n_cols)
            for n_rows in (1, 2, 3, N_ROWS):
                for gap in (0, self.format.type_size):
                    case = f"{n_rows} rows of {n_cols} values, {row_bytes + gap} bytes apart"
                    apart = np.zeros((n_rows, row_bytes + gap), np.uint8)
                    apart[:, :row_bytes] = self.rows(n_rows, n_cols)
                    before = apart.copy()
                    wanted = self.decode(apart[:, :row_bytes], n_cols, case)
                    out = np.full(n_rows * n_cols + 64, np.uint32(0x7FC0DEAD), np.uint32)
                    place = out.ctypes.data + 32 * 4
                    function(apart.ctypes.data, row_bytes + gap, n_rows, n_cols, place)
                    self.compare(out, wanted, case)
                    if not np.array_equal(apart, before):
                        self.fail("the native decoder writes to its input", case)

    def compare(self, out: np.ndarray[Any, Any], wanted: F32, case: str) -> None:
        edges, inner = np.concatenate([out[:32], out[-32:]]), out[32:-32]
        if (edges != 0x7FC0DEAD).any():
            self.fail("the native decoder writes outside its output", case)
        if (inner == 0x7FC0DEAD).any():
            at = int((inner == 0x7FC0DEAD).argmax())
            row, column = divmod(at, wanted.shape[1])
            self.fail(f"the native decoder leaves row {row}, column {column} unwritten", case)
        found = inner.view(np.float32).reshape(wanted.shape)
        finite = np.isfinite(wanted)
        tolerance = 1e-6 * np.abs(np.where(finite, wanted, 0)).max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # infinities are left out of the comparison
            wrong = (finite & ~(np.abs(found - wanted) <= tolerance)) | (finite != np.isfinite(found))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            self.fail(
                f"the native decoder gives {found[row, column]:g} in row {row}, column {column}, "
                f"where dequantize gives {wanted[row, column]:g}",
                case,
            )


def _with(values: F32, column: int, value: float) -> F32:
    changed = values.copy()
    changed[:, column] = value
    return changed


def _same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    return a.shape == b.shape and np.array_equal(
        np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
    )


def _relative(error: F32, values: F32) -> float:
    """Root mean square of the error over that of the values, each row counted alike."""
    squares = (error.astype(np.float64) ** 2).sum(axis=1) / (values.astype(np.float64) ** 2).sum(axis=1)
    return float(np.sqrt(squares.mean()))
