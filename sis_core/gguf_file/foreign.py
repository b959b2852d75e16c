"""Tensors in formats that GGUF has no id for.

Such a tensor is stored as I8, which every GGUF tool can list, and four parallel string arrays in the metadata say
what its bytes are. One file can hold several such formats.

    sis.tensor.names     the tensors, by name
    sis.tensor.formats   each one's format, as its codec is named
    sis.tensor.packages  where that codec can be found; may be empty. Shown as untrusted text, never installed
    sis.tensor.shapes    each one's logical dimensions, in decimal, in GGUF's order: "4096,11008" has rows of 4096
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from attrs import evolve

from sis_core.errors import GGUFError
from sis_core.gguf_file.arrays import Array, Value
from sis_core.gguf_file.cursor import DAMAGED, show
from sis_core.gguf_file.tables import I8, MAX_COUNT, MAX_DIMS, TENSOR_TYPES_BY_NAME
from sis_core.gguf_file.tensors import TensorInfo, check_density

KEYS = tuple(f"sis.tensor.{part}" for part in ("names", "formats", "packages", "shapes"))

_FORMAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})?", re.ASCII)
_SHAPE = re.compile(rf"[1-9][0-9]{{0,18}}(,[1-9][0-9]{{0,18}}){{0,{MAX_DIMS - 1}}}", re.ASCII)


def is_format_name(text: str) -> bool:
    """Whether `text` can name a format: letters, digits and `._+-`, at most 64."""
    return _FORMAT.fullmatch(text) is not None


def is_package_name(text: str) -> bool:
    """Whether `text` can name a package, or is empty."""
    return _PACKAGE.fullmatch(text) is not None


def resolve(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, Value], where: str) -> dict[str, TensorInfo]:
    """The tensors, those in formats without a GGUF id shown as what they are, in the same order.

    Raises:
        GGUFError: the four arrays contradict each other or the tensors.
    """
    resolved = dict(tensors)
    names, *others = (_texts(metadata, key, where) for key in KEYS)
    for key, texts in zip(KEYS[1:], others, strict=True):
        if len(texts) != len(names):
            raise _refuse(where, f"key {key!r} has {len(texts)} elements, but {KEYS[0]!r} has {len(names)}")
    for name, format, package, shape in zip(names, *others, strict=True):
        if name not in tensors:
            raise _refuse(where, f"key {KEYS[0]!r} names a tensor {show(name)} that the file does not have")
        if resolved[name] is not tensors[name]:
            raise _refuse(where, f"key {KEYS[0]!r} names tensor {show(name)} twice")
        resolved[name] = _resolve(tensors[name], format, package, shape, where)
    return resolved


def _resolve(stored: TensorInfo, format: str, package: str, shape: str, where: str) -> TensorInfo:
    tensor = f"tensor {show(stored.name)}"
    if stored.type_id != I8.id:
        raise _refuse(where, f"{tensor} is said to hold format {show(format)} but has type {stored.type_name}, not I8")
    if not is_format_name(format):
        raise _refuse(where, f"{tensor} has {show(format)} for the name of its format")
    if not is_package_name(package):
        raise _refuse(where, f"{tensor} has {show(package)} for the name of its package")
    if not _SHAPE.fullmatch(shape):
        raise _refuse(where, f"{tensor} has {show(shape)} for its shape; it must be like '4096,11008'")
    logical = tuple(int(n) for n in reversed(shape.split(",")))
    _check_size(stored, format, logical, where)
    return evolve(stored, shape=logical, type_id=None, type_name=format, known=False, package=package)


def _check_size(stored: TensorInfo, format: str, shape: tuple[int, ...], where: str) -> None:
    tensor = f"tensor {show(stored.name)}"
    if prod(shape) > MAX_COUNT:
        raise _refuse(where, f"{tensor} with shape {shape} has {prod(shape)} elements, more than 2**63 - 1")
    check_density(where, stored.name, shape, stored.n_bytes)
    type = TENSOR_TYPES_BY_NAME.get(format)  # the file may be older than the format's id
    if type and (shape[-1] % type.block_size or type.n_bytes(prod(shape)) != stored.n_bytes):
        raise _refuse(where, f"{tensor} has {stored.n_bytes} bytes, which do not hold {shape} in {format}")


def _texts(metadata: Mapping[str, Value], key: str, where: str) -> list[str]:
    if key not in metadata:
        return []
    value = metadata[key]
    if not isinstance(value, Array) or value.element_type != "string":
        raise _refuse(where, f"key {key!r} must be an array of strings")
    try:
        return [text.decode("utf-8") for text in value.bytes_list()]
    except UnicodeDecodeError as bad:
        raise _refuse(where, f"key {key!r} has an element that is not UTF-8 ({bad.object[:40]!r})") from None


def _refuse(where: str, what: str) -> GGUFError:
    return GGUFError(what, where=where, fix=DAMAGED)
