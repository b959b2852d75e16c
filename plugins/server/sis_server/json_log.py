"""Logs for programs: one JSON object a line on standard error, whoever writes there."""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import IO, Any

from sis_core.cli.streams import printable


class JsonLines(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``; ``request`` is a request's trace, ``error`` a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := getattr(record, "request", None)) is not None:
            told["request"] = request
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)  # in ASCII: no control character of a stranger's reaches a terminal


class _Lines(io.RawIOBase):
    """Takes lines that are no logs (the address at the start, an error at the end), and writes each as one."""

    def __init__(self, stderr: IO[str]) -> None:
        self._stderr, self._rest = stderr, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        for line in filter(None, lines):
            record = logging.LogRecord(
                "stderr", logging.INFO, "", 0, printable(line.decode(errors="replace")), None, None
            )
            self._stderr.write(JsonLines().format(record) + "\n")
            self._stderr.flush()
        return len(data)


def log_json() -> None:
    """Write all logs so from now on, each request too, and all else that goes to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(
        level=min(logging.INFO, logging.getLogger().level or logging.INFO), handlers=[handler], force=True
    )
    sys.stderr = io.TextIOWrapper(_Lines(sys.stderr), encoding="utf-8", errors="replace", write_through=True)
