"""The tensors of a file as weights, each with the codec of its type."""

from __future__ import annotations

from math import prod
from typing import Any

from sis_core.arrays import F32
from sis_core.errors import FormatError, SisError, blaming
from sis_core.gguf_file import ModelFile, TensorInfo
from sis_core.loading.sides import claim_sides
from sis_core.quant import QuantFormat, Weight, version_key
from sis_core.registry import Registry


def file_weights(file: ModelFile, registry: Registry) -> dict[str, Weight]:
    """Every tensor of a file as a weight.

    Raises:
        FormatError: a type without a codec (with tensor, type and package), or a tensor whose bytes are not what its
            format takes for its shape.
    """
    return {name: file_weight(file, registry, info) for name, info in file.tensors.items()}


def file_weight(file: ModelFile, registry: Registry, info: TensorInfo) -> Weight:
    """One tensor of a file as a weight; raises what `file_weights` does."""
    where = f"{file.path}: tensor {info.name}"
    format = _format(info, registry, where)
    if info.type_id is None:
        format = _of_version(format, file_version(file, format.name), where)
    shape = info.shape or (1,)  # GGUF allows a scalar

    def read(side: TensorInfo) -> F32:
        return file_weight(file, registry, side).dequantize()

    n_bytes = prod(shape[:-1]) * format.row_bytes(shape[-1])
    # The reader knows the sizes of GGUF's own types only; a type it does not know may end in padding.
    wrong = n_bytes > info.n_bytes if info.type_id is not None else n_bytes != info.n_bytes
    if wrong:
        raise FormatError(
            f"has {info.n_bytes} bytes, but {info.shape} in {format.name} takes {n_bytes}",
            where=where,
            fix="the file was written by another version of the format: quantise it again",
        )
    return Weight(
        info.name, format, shape, _reader(file, info.name, n_bytes), shape, release=_releaser(file, info.name),
        copy=_copier(file, info.name), check=file.checker(info.name), side=claim_sides(file, info, format, read),
    )  # fmt: skip


def _format(info: TensorInfo, registry: Registry, where: str) -> QuantFormat:
    """The codec of a tensor: by its number, which is what the file says, else by the name of a foreign format."""
    found: QuantFormat | None = None
    if info.type_id is not None:
        found = registry.find("quant_formats", f"type {info.type_id}")
    found = found or registry.find("quant_formats", info.type_name)
    if found is not None:
        return found
    if info.package:
        raise FormatError(
            f"its format {info.type_name!r} is not installed",
            where=where,
            fix=f"the file says that the package {info.package!r} brings it; install that if you trust it, or name a "
            "plugin's file with --plugin",
        )
    if info.type_id is None:
        raise FormatError(
            f"its format {info.type_name!r} is not installed, and the file names no package that brings it",
            where=where,
            fix="name the plugin's file with --plugin",
        )
    if info.type_name == f"type {info.type_id}":
        raise FormatError(
            f"no installed plugin knows its {info.type_name}, and it is none of GGUF's own",
            where=where,
            fix="install the plugin that wrote the file, or name a plugin's file with --plugin",
        )
    try:
        registry.get("quant_formats", info.type_name)
    except SisError as error:
        raise FormatError(error.what, where=where, fix=error.fix) from None
    raise AssertionError("unreachable: a format cannot appear between two look-ups")


def file_version(file: ModelFile, format: str) -> int:
    """Which version of a format that GGUF has no id for a file says that it is in; FormatError where that is none."""
    version = file.metadata.get(version_key(format), 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise FormatError(
            f"{version_key(format)} is {version!r}, which is no version of a format",
            where=str(file.path),
            fix="quantise the model again from its original",
        )
    return version


def _of_version(format: QuantFormat, version: int, where: str) -> QuantFormat:
    """The codec for a version; FormatError, saying where, when there is none."""
    try:
        with blaming(FormatError, f"of_version of the format {format.name}", where):
            return format.of_version(version)
    except FormatError as error:
        raise FormatError(error.what, where=where, fix=error.fix) from None


def _reader(file: ModelFile, name: str, n_bytes: int) -> Any:
    return lambda: file.raw(name)[:n_bytes]


def _copier(file: ModelFile, name: str) -> Any:
    return lambda start, stop: file.copy(name, start, stop)


def _releaser(file: ModelFile, name: str) -> Any:
    return lambda: file.release(name)
