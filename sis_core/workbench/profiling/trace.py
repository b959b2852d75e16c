"""A trace in Chrome's JSON format, which https://ui.perfetto.dev and chrome://tracing open.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU, complete events (``X``), times
in microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sis_core.workbench.profiling.recorder import Span


def trace_events(spans: Sequence[Span], title: str) -> dict[str, Any]:
    """The object to write as JSON."""
    first = min((span.start for span in spans), default=0)
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": title}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "steps"}},
    ]
    for span in sorted(spans, key=lambda span: (span.start, -span.stop)):
        layer = "" if span.layer is None or span.part in ("linear", "decode") else f"layer {span.layer} "
        args = {"plugin": span.owner, "token": span.token, "layer": span.layer, "detail": span.detail}
        events.append(
            {
                "name": layer + span.part + (f" {span.detail}" if span.detail else ""),
                "cat": span.owner,
                "ph": "X",
                "ts": (span.start - first) / 1e3,
                "dur": span.ns / 1e3,
                "pid": 1,
                "tid": 1,
                "args": {key: value for key, value in args.items() if value not in (None, "")},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}
