"""The whole file: allocate it, fill in one tensor after the other, and give it its name when it is complete."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import metadata as distributions
from pathlib import Path
from typing import Any, BinaryIO

from attrs import frozen

from sis_core.arrays import F32
from sis_core.errors import FormatError, SourceError
from sis_core.gguf_file import GGUFFile, ModelFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.sides import file_sides
from sis_core.loading.weights import file_version
from sis_core.machine.cores import default_threads
from sis_core.quant import version_key
from sis_core.sides import sides_key
from sis_core.workbench.quantizer.encode import encode
from sis_core.workbench.quantizer.importance import Importance
from sis_core.workbench.quantizer.plan import UNQUANTISED, Plan, TensorPlan
from sis_core.workbench.quantizer.read_back import check_read_back
from sis_core.workbench.quantizer.sides import with_sides
from sis_core.workbench.quantizer.work import WorkFolder

log = logging.getLogger(__name__)

COPY = 1 << 22
OF_FORMATS = re.compile("|".join(re.escape(key("*")).replace(r"\*", ".+") for key in (version_key, sides_key)))
SOURCES = (".py", ".so", ".dylib", ".dll", ".pyd")  # files that may change what an encoder does
Progress = Callable[[str, int, int], None]
"""Called with a tensor's name and the bytes done and in all."""


@frozen
class Result:
    """What a run did: tensors that were made now, those that an earlier run had finished, and all of the file."""

    path: Path
    plan: Plan
    n_bytes: int
    n_made: int
    n_resumed: int
    seconds: float


def quantize_file(
    file: ModelFile,
    target: Path,
    plan: Plan,
    *,
    importance: Importance | None = None,
    n_threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write ``file`` to ``target`` as ``plan`` says. The same call after a kill goes on where it was.

    ``target`` appears when it is complete. After an error nothing of it stays; after a kill or an interruption the
    finished tensors wait in a folder beside it.

    Raises:
        SourceError: ``target`` exists (unless ``force``), is the input, or cannot be written; the disk is full.
        FormatError: a tensor holds NaN or infinity, its format failed, or rows that were read back are not near those
            that they were made of.
    """
    check_target(file, target, force)
    started = time.perf_counter()
    n_threads = n_threads or default_threads()
    plan = with_sides(plan, importance)
    with WorkFolder(target, _key(file, plan, importance)) as work:
        if work.started_anew:
            log.warning(
                "%s: the unfinished work of another command, or of a format that was changed, was there; starting anew",
                target,
            )
        try:
            if not work.model.exists():
                _allocate(file, work.model, plan, importance)
            finished = work.finished()
            if finished:
                log.warning("%s: going on; %d of %d tensors are done", target, len(finished), len(plan.tensors))
            with ThreadPoolExecutor(n_threads, "sis-quantize") as pool:
                _fill(file, plan, work, finished, importance, pool, 2 * n_threads, progress)
            size = work.model.stat().st_size
            work.publish()
        except OSError as error:
            raise SourceError(
                f"cannot be written: {error}", where=str(target), fix="check the disk's space and the permissions"
            ) from error
    n_resumed = len(finished)
    return Result(target, plan, size, len(plan.tensors) - n_resumed, n_resumed, time.perf_counter() - started)


def check_target(file: ModelFile, target: Path, force: bool) -> None:
    """SourceError when ``target`` cannot or must not be written."""
    if not target.parent.is_dir():
        raise SourceError(f"the folder {target.parent} does not exist", where=str(target), fix="make it first")
    if target.is_dir():
        raise SourceError("is a folder", where=str(target), fix="name a file in it")
    if target.exists() and not target.is_file():
        raise SourceError("is not a regular file", where=str(target), fix="name a file")
    if target.exists():
        if any(path.samefile(target) for path in file.paths):
            raise SourceError("the output would overwrite the input", where=str(target), fix="name another output")
        if not force:
            raise SourceError("exists already", where=str(target), fix="name another file, or add --force")


def _key(file: ModelFile, plan: Plan, importance: Importance | None) -> dict[str, Any]:
    """What the bytes of the output depend on."""
    inputs = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in file.paths]
    tensors = [(t.name, t.type_name, t.package, type(t.format).__module__) for t in plan.tensors]
    return {
        "version": distributions.version("sis-core"),
        "inputs": [list(entry) for entry in inputs],
        "label": plan.label,
        "tensors": [list(entry) for entry in tensors],
        "encoders": {module: _digest(module) for module in sorted({type(t.format).__module__ for t in plan.tensors})},
        "importance": importance.digest if importance else "",
    }


def _digest(module: str) -> str:
    """The bytes of the package, or of the single file, that a module comes from: an edited encoder is another one."""
    top = sys.modules.get(module.partition(".")[0])
    if top is None or module == "builtins":
        return ""
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in SOURCES]
    digest = hashlib.sha256()
    for path in sorted(files or [Path(top.__file__ or "")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _allocate(file: ModelFile, path: Path, plan: Plan, importance: Importance | None) -> None:
    """Write the header, and zeros for every tensor."""
    values, types = output_metadata(file, plan, importance)
    writer = GGUFWriter(path, values, types=types, alignment=file.alignment)
    for t in plan.tensors:
        writer.add_tensor(t.name, t.info.shape, t.type, _zeros(t.n_bytes), n_bytes=t.n_bytes, package=t.package)
    writer.write()


def _zeros(n: int) -> Iterator[bytes]:
    block = bytes(COPY)
    for start in range(0, n, COPY):
        yield block[: min(COPY, n - start)]


def _fill(
    file: ModelFile,
    plan: Plan,
    work: WorkFolder,
    finished: dict[str, int],
    importance: Importance | None,
    pool: Executor,
    n_pending: int,
    progress: Progress | None,
) -> None:
    with GGUFFile.open(work.model) as made:
        offsets = {name: info.offset for name, info in made.tensors.items()}
    done, total = 0, plan.n_bytes
    warned: set[str] = set()
    with work.model.open("r+b") as out:
        for tensor in plan.tensors:
            before = done
            done += tensor.n_bytes
            if tensor.name in finished:
                continue

            def report(n: int, tensor: TensorPlan = tensor, before: int = before) -> None:
                if progress:
                    progress(tensor.name, before + n, total)

            report(0)
            out.seek(offsets[tensor.name])
            columns = _importance(tensor, importance)
            crc = _write(file, tensor, columns, pool, n_pending, out, report)
            out.flush()
            if tensor.format is not None and tensor.weight is not None:
                rough = check_read_back(out, offsets[tensor.name], tensor.weight, tensor.format, columns)
                if rough and tensor.format.name not in warned:
                    warned.add(tensor.format.name)
                    log.warning("%s", rough)
            if tensor.name in file.tensors:  # not a side that was made
                file.release(tensor.name)
            work.mark(tensor.name, crc)
            report(tensor.n_bytes)
        os.fsync(out.fileno())


def _importance(tensor: TensorPlan, importance: Importance | None) -> F32 | None:
    """That of the tensor's columns, where its format uses it."""
    if importance is None or tensor.format is None or not tensor.format.uses_importance:
        return None
    mean = importance.mean(tensor.name, tensor.info.shape)
    return mean if mean is None or tensor.column_weights is None else mean * tensor.column_weights


def _write(
    file: ModelFile,
    tensor: TensorPlan,
    columns: F32 | None,
    pool: Executor,
    n_pending: int,
    out: BinaryIO,
    report: Callable[[int], None],
) -> int:
    """Write one tensor's bytes at the place where ``out`` stands, and return their CRC-32."""
    crc = n = 0
    for piece in _pieces(file, tensor, columns, pool, n_pending):
        data = memoryview(piece).cast("B")
        out.write(data)
        crc = zlib.crc32(data, crc)
        n += len(data)
        report(n)
    return crc


def _pieces(file: ModelFile, tensor: TensorPlan, columns: F32 | None, pool: Executor, n_pending: int) -> Iterator[Any]:
    if tensor.format is None or tensor.weight is None:
        raw = file.raw(tensor.name)
        yield from (raw[start : start + COPY] for start in range(0, len(raw), COPY))
        return
    yield from encode(tensor.weight, tensor.format, columns, pool, n_pending)


def output_metadata(
    file: ModelFile, plan: Plan, importance: Importance | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata of the output and their types: those of the input, and what the quantisation changes."""
    values, types = dict(file.metadata), dict(file.metadata_types)
    changed: dict[str, Any] = {"general.file_type": _file_type(plan)}
    if any(t.type_name not in UNQUANTISED for t in plan.tensors):
        from gguf import GGML_QUANT_VERSION

        changed["general.quantization_version"] = int(GGML_QUANT_VERSION)
    if importance:
        changed |= {
            "quantize.imatrix.file": Path(importance.path).name,
            "quantize.imatrix.dataset": importance.datasets[0] if importance.datasets else "",
            "quantize.imatrix.entries_count": len(importance.sums),
            "quantize.imatrix.chunks_count": importance.n_chunks,
        }
    changed |= dict.fromkeys(key for key in values if OF_FORMATS.fullmatch(key))
    changed |= versions(file, plan) | sides(file, plan)
    for key, value in changed.items():
        values.pop(key, None)
        types.pop(key, None)
        if value is not None:
            values[key] = value
    return values, types


def versions(file: ModelFile, plan: Plan) -> dict[str, int]:
    """Which version of each format without an id the output is in, by key.

    Raises:
        FormatError: tensors that are copied are in another version than those that are encoded.
    """
    found: dict[str, int] = {}
    for tensor in plan.tensors:
        if isinstance(tensor.type, int):
            continue
        version = file_version(file, tensor.type_name) if tensor.format is None else tensor.format.version
        if found.setdefault(key := version_key(tensor.type_name), version) != version:
            raise FormatError(
                f"tensors in version {found[key]} and {version} of the format {tensor.type_name} cannot be in one file",
                where=f"{file.path}: tensor {tensor.name}",
                fix="quantise the model again from its original",
            )
    return found


def sides(file: ModelFile, plan: Plan) -> dict[str, list[str]]:
    """Which sides of each format's weights the output has, by key: those that were made, and those that are copied."""
    tensors, found = {tensor.name for tensor in plan.tensors}, dict[str, list[str]]()
    for format in {tensor.type_name for tensor in plan.tensors}:
        names = file_sides(file, format) | {
            place.tensor
            for tensor in plan.tensors
            if tensor.format is not None and tensor.type_name == format
            for place in tensor.format.side_names(tensor.name).values()
            if place.axis is not None
        }
        if there := sorted(names & tensors):
            found[sides_key(format)] = there
    return found


def _file_type(plan: Plan) -> int | None:
    """GGUF's number for what most of the file is, or None where there is none."""
    from gguf import LlamaFileType

    longer = {"Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q3_K": "Q3_K_S", "MXFP4": "MXFP4_MOE"}
    label = longer.get(plan.label, plan.label)
    name = "ALL_F32" if label == "F32" else f"MOSTLY_{label}"
    return int(LlamaFileType[name]) if name in LlamaFileType.__members__ else None
