"""Tensors in formats that GGUF has no id for, as a file names them."""

from __future__ import annotations

import gguf_cases as cases
import pytest
from gguf_cases import Save, array, gguf, refusal, strings, tensor

from sis_core.gguf_file import GGUFFile


def foreign(
    names: tuple[str, ...] = ("t",),
    formats: tuple[bytes | str, ...] = ("XQ2",),
    packages: tuple[str, ...] = ("sis-xq2",),
    shapes: tuple[str, ...] = ("64,2",),
    type: int = 24,
) -> bytes:
    keys = (("names", names), ("formats", formats), ("packages", packages), ("shapes", shapes))
    pairs = [strings(f"sis.tensor.{key}", texts) for key, texts in keys]
    return gguf(pairs, [tensor("t", [16, 2], type), tensor("u", [32], offset=128)], bytes(256))


def test_foreign_format(save: Save) -> None:
    with GGUFFile.open(save(foreign())) as file:
        info = file.tensors["t"]
        assert (info.type_name, info.type_id, info.package, info.known) == ("XQ2", None, "sis-xq2", False)
        assert (info.shape, info.n_bytes) == ((2, 64), 32)
        assert file.tensors["u"].type_name == "F32"
        assert list(file.tensors) == ["t", "u"]


FOREIGN_REFUSALS = {
    "lengths differ": (foreign(packages=()), "'sis.tensor.packages' has 0 elements, but 'sis.tensor.names' has 1"),
    "no such tensor": (foreign(names=("v",)), "names a tensor 'v'"),
    "named twice": (foreign(("t", "t"), ("A", "B"), ("", ""), ("64", "64")), "names tensor 't' twice"),
    "not I8": (foreign(type=0), "tensor 't' is said to hold format 'XQ2' but has type F32"),
    "no format": (foreign(formats=("",)), "tensor 't' has '' for the name of its format"),
    "not UTF-8": (foreign(formats=(b"\xff",)), "not UTF-8"),
    "command for a package": (foreign(packages=("x; rm",)), "tensor 't' has 'x; rm' for the name of its package"),
    "path for a package": (foreign(packages=("../x",)), "'../x'"),
    "shape with a zero": (foreign(shapes=("64,0",)), "tensor 't' has '64,0' for its shape"),
    "shape of five": (foreign(shapes=("2,2,2,2,2",)), "'2,2,2,2,2'"),
    "no shape": (foreign(shapes=("",)), "''"),
    "shape too big": (foreign(shapes=(f"{2**40},{2**40}",)), "more than 2**63 - 1"),
    "shape too dense": (foreign(shapes=("4096,2",)), "claims 8192 elements in 32 bytes"),
    "id of its own": (foreign(formats=("Q4_0",)), "32 bytes, which do not hold (2, 64) in Q4_0"),
    "numbers": (gguf([array("sis.tensor.names", cases.U8, 1, b"\1")]), "must be an array of strings"),
}


@pytest.mark.parametrize(("data", "words"), FOREIGN_REFUSALS.values(), ids=FOREIGN_REFUSALS.keys())
def test_foreign_refusals(data: bytes, words: str, save: Save) -> None:
    path = save(data)
    assert words in refusal(lambda: GGUFFile.open(path))
