"""The pieces in a SentencePiece ``tokenizer.model``.

The file is a protocol buffer (https://protobuf.dev/programming-guides/encoding): a ``ModelProto`` whose field 1,
repeated, is a piece: 1 its text, 2 its score (a float), 3 its type (NORMAL where absent), as in
sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from sis_core.errors import SourceError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
LARGEST = 1 << 26
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@frozen
class Piece:
    """A token: its text in UTF-8, its score and its type."""

    text: bytes
    score: float
    type: int


def read_pieces(path: Path) -> list[Piece]:
    """Every piece, in order of its id.

    Raises:
        SourceError: it cannot be read or is no such file.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        pieces = [_piece(value) for field, value in _fields(path.read_bytes()) if field == 1]
        if not pieces:
            raise ValueError("it has no pieces")
    except (OSError, ValueError, struct.error, TypeError) as error:
        raise SourceError(f"is no SentencePiece model: {error}", where=str(path), fix="download it again") from None
    return pieces


def _piece(data: object) -> Piece:
    if not isinstance(data, bytes):
        raise ValueError("a piece is not a message")
    text, score, kind = b"", 0.0, NORMAL
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            text = value
        elif field == 2 and isinstance(value, float):
            score = value
        elif field == 3 and isinstance(value, int):
            kind = value
    text.decode("utf-8")
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece has the type {kind}")
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Field numbers and values of a message; a 32-bit value is a float."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield field, number
        elif wire == _BYTES:
            n, at = _varint(data, at)
            if n > len(data) - at:
                raise ValueError("it is cut short")
            yield field, data[at : at + n]
            at += n
        elif wire in (_FIXED32, _FIXED64):
            layout = "<f" if wire == _FIXED32 else "<d"
            yield field, struct.unpack_from(layout, data, at)[0]
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"it has a field of wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number without end")
