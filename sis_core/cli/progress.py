"""A progress bar on a terminal for what takes a moment, and nothing at all in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Update = Callable[[str, int, int], None]
PATIENCE = 0.5  # seconds until a bar appears: most models are packed by then, before rich is even imported


@contextmanager
def progress_bar() -> Iterator[Update]:
    """A function to call with what is being done, how much of it is done, and how much there is."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None
        return
    started, draw = time.monotonic(), None
    with ExitStack() as stack:

        def update(text: str, done: int, total: int) -> None:
            nonlocal draw
            if draw is None and time.monotonic() - started >= PATIENCE:
                draw = _start_bar(stack)
            if draw is not None:
                draw(text, done, total)

        yield update


def _start_bar(stack: ExitStack) -> Update:
    """A bar that stays as long as ``stack``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = bar.add_task("", total=None)
    return lambda text, done, total: bar.update(task, description=escape(text), completed=done, total=total)
