"""How `check_quant_format` calls a format: its verbs in every way that they may be called in, on rows of every kind."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.guarded import unpacked
from sis_core.quant import QuantFormat
from sis_core.unpacked import not_finite

N_ROWS = 7  # odd: a native decoder that works in pairs of rows has one left over
ORDINARY = 6e4  # magnitudes up to here must stay finite: they fit even into binary16


class FormatProbe:
    """A format's verbs, each held to what a single call shows, the rows to try them on, and the ways to call them."""

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
            except AssertionError:
                raise
            except FormatError as error:
                if verb.startswith("dequantize"):  # there is nothing to refuse in rows
                    self.fail(str(FormatError(error.what, fix=error.fix)), case)
                raise
            except Warning as warning:
                by_zero = str(warning).endswith("divide")  # numpy says where: "encountered in divide"
                fix = "a block of zeros has the scale 0: divide by np.where(scale > 0, scale, 1)" if by_zero else ""
                self.fail(f"{verb} warns: {warning}; {fix or 'if that is meant, put np.errstate around it'}", case)
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

    def remain_finite(self, rows: U8, decoded: F32, case: str) -> None:
        """What finite values were encoded to, and decoded from it: the layout's number that is none is named."""
        if np.isfinite(decoded).all():
            return
        fault = ""
        if self.format.layout is not None:
            fault = not_finite(unpacked(self.format, rows, decoded.shape[1]))
        self.fail(f"turns finite values into {decoded[~np.isfinite(decoded)][0]}{fault and f': {fault}'}", case)

    def result(self, verb: str, found: Any, dtype: type, shape: tuple[int, int], case: str) -> None:
        if not isinstance(found, np.ndarray):
            self.fail(f"{verb} returns {type(found).__name__}, not an array", case)
        if found.dtype != dtype:
            self.fail(f"{verb} returns {found.dtype}, not {np.dtype(dtype)}", case)
        if found.shape != shape:
            self.fail(f"{verb} returns the shape {found.shape}, not {shape}", case)

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

    def repeatable(self, verb: str, run: Callable[[Any], Any], given: Any, other: Any) -> None:
        first = run(given)
        kept = first.copy()
        if not same(kept, run(given)):
            self.fail(f"{verb} is not deterministic: the same input gives another result the second time")
        run(other)
        if not same(kept, first):
            self.fail(f"{verb} returns the same memory each time: a later call changes an earlier result")
        if not same(kept, run(given)):
            self.fail(f"{verb} keeps state between calls: another input in between changes the result")

    def independent(self, verb: str, run: Callable[[Any], Any], given: Any) -> None:
        whole = run(given).copy()
        order = self.random.permutation(len(given))
        for i in range(len(given)):
            if not same(run(given[i : i + 1])[0], whole[i]):
                self.fail(f"{verb}: row {i} alone gives another result than among {len(given)} rows{self.unsorted()}")
        if not same(run(given[order]), whole[order]):
            self.fail(f"{verb}: rows in another order give other results{self.unsorted()}")

    def strided(self, verb: str, run: Callable[[Any], Any], given: Any) -> None:
        whole = run(given).copy()
        wide = np.zeros((len(given), given.shape[1] * 3), given.dtype)
        wide[:, given.shape[1] : 2 * given.shape[1]] = given
        cut = wide[:, given.shape[1] : 2 * given.shape[1]]
        if not same(run(cut), whole):
            self.fail(f"{verb}: rows cut out of longer rows (strided) give another result than contiguous ones")
        if not same(run(given[::-1]), whole[::-1]):
            self.fail(f"{verb}: rows backwards in memory give another result than contiguous ones{self.unsorted()}")
        unaligned = np.empty(given.nbytes + 1, np.uint8)[1:].view(given.dtype).reshape(given.shape)
        unaligned[:] = given
        if not same(run(unaligned), whole):
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
                    as_alone = same(run(several[i]), wanted[i])
                except Exception as error:
                    faults.append(f"{type(error).__name__}: {error}")
                    return
                if not as_alone:
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


def _with(values: F32, column: int, value: float) -> F32:
    changed = values.copy()
    changed[:, column] = value
    return changed


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    return a.shape == b.shape and np.array_equal(
        np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
    )
