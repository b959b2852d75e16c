"""What an actor is: the one object that it was started for."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any


class Host:
    """Makes its object when it is first called: so an error of that is an answer, and does not end the actor."""

    def __init__(self, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._kind, self._arguments = kind, arguments
        self._lock = threading.Lock()
        self._life = uuid.uuid4().hex
        self._made: list[Any] = []

    def ready(self) -> str:
        """Which life of the actor this is, as soon as the object is made; raises what making it raises."""
        self._object()
        return self._life

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object(), method)(*arguments)

    def stream(self, method: str, *arguments: Any) -> Iterator[Any]:
        yield from getattr(self._object(), method)(*arguments)

    def _object(self) -> Any:
        with self._lock:
            if not self._made:
                self._made.append(self._kind(*self._arguments))
        return self._made[0]
