"""What a file is when it is not the GGUF this reader reads, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from sis_core.gguf_file.tables import MAGIC

#: Enough of a file's front to tell what it is.
SNIFF_BYTES = 512

_CONVERT = "convert the original model with llama.cpp's convert_hf_to_gguf.py, or download a GGUF of it"
_LINK = "the address led to a web page: download from the file's own link (on Hugging Face: /resolve/, not /blob/)"
_NEVER_LOADED = f"loading it could run code, so sis never does: {_CONVERT}"


class Finding(NamedTuple):
    """What a file is, as the end of a sentence that starts with "this is", and what to do."""

    what: str
    fix: str


_OLD = "files of that age no longer fit any model code: download or convert the model again as GGUF"

_MAGICS = (
    (b"lmgg", Finding("a GGML file of before August 2023, not GGUF", _OLD)),
    (b"fmgg", Finding("a GGMF file of before August 2023, not GGUF", _OLD)),
    (b"tjgg", Finding("a GGJT file of before August 2023, not GGUF", _OLD)),
    (b"algg", Finding("a GGLA LoRA adapter of before August 2024, not GGUF", _OLD)),
    (b"version https://git-lfs", Finding("a Git LFS pointer, not the model itself", "fetch the model: git lfs pull")),
    (b"PK\x03\x04", Finding("a ZIP archive, not GGUF", "unpack it, and give the .gguf file inside")),
    (b"\x1f\x8b", Finding("a gzip archive, not GGUF", "unpack it, and give the .gguf file inside")),
    (b"(\xb5/\xfd", Finding("a Zstandard archive, not GGUF", "unpack it, and give the .gguf file inside")),
    (b"\x89HDF", Finding("an HDF5 file, not GGUF", _CONVERT)),
)

_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")


def recognise(front: bytes, size: int) -> Finding | None:
    """What a file of `size` bytes is, judging by its first `SNIFF_BYTES`; None when it starts as GGUF does."""
    if front.startswith(MAGIC):
        return _gguf(front)
    if MAGIC.startswith(front[:4]):
        return Finding(f"{'an empty file' if not size else f'only {size} bytes long'}, not GGUF", "download it again")
    return _other(front, size)


def _gguf(front: bytes) -> Finding | None:
    version = front[4:8]
    if version in (b"\0\0\0\x01", b"\0\0\0\x02", b"\0\0\0\x03"):
        return Finding(
            "a big-endian GGUF file, and sis reads little-endian ones",
            "convert it with gguf-convert-endian FILE little (of the Python package gguf), or download the usual file",
        )
    if version == b"\x01\0\0\0":
        return Finding(
            "a GGUF file of version 1 (of August to October 2023), and sis reads versions 2 and 3",
            "download a newer file of this model, or rewrite it with a llama.cpp of autumn 2023: quantize IN OUT COPY",
        )
    return None


def _other(front: bytes, size: int) -> Finding:
    text = front.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not front.strip(b"\0"):
        return Finding("filled with zero bytes, not GGUF", "the download was never finished: download it again")
    if front.startswith(b"PK\x03\x04") and b"/data.pkl" in front[:256]:
        return Finding("a PyTorch checkpoint (pickle in a ZIP), not GGUF", _NEVER_LOADED)
    if front[:1] == b"\x80" and front[1:2] in b"\x02\x03\x04\x05":
        return Finding("a Python pickle, not GGUF", _NEVER_LOADED)
    if front[8:9] == b"{" and int.from_bytes(front[:8], "little") <= size:
        return Finding("a safetensors file, not GGUF", f"`pip install sis-hub` and give its folder; or {_CONVERT}")
    if text[:9].lower().startswith(_MARKUP):
        return Finding("an HTML or XML page, not GGUF", _LINK)
    if text[:1] == b"{":
        return Finding(
            "a JSON file, not GGUF",
            "perhaps it is an error message that was saved in place of the model: open it and see",
        )
    for magic, finding in _MAGICS:
        if front.startswith(magic):
            return finding
    return Finding(f"no GGUF file: it starts with {front[:4]!r}, not b'GGUF'", "check the path, or download it again")
