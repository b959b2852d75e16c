"""Machines that are threads of this process, for tests: what is made on them can be lost on purpose."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sis_core.cluster import Machines, Pending
from sis_core.errors import LostError


class Threads(Machines):
    """So many machines. What goes to an object and comes back is pickled, as on the way to another machine.

    Attributes:
        made: the objects, in the order in which they were asked for.
    """

    def __init__(self, n: int) -> None:
        self.names: Sequence[str] = [f"machine {i}" for i in range(n)]
        self.made: list[ThreadRemote] = []

    def make(self, kind: Callable[..., Any], *arguments: Any, on: int = 0, at_once: int = 1) -> ThreadRemote:
        self.made.append(ThreadRemote(pickle.dumps((kind, arguments)), self.names[on], at_once))
        return self.made[-1]

    def close(self) -> None:
        for made in self.made:
            made.close()


class ThreadRemote:
    """An object on threads of its own. A method that raises SystemExit has ended its machine."""

    def __init__(self, recipe: bytes, where: str, at_once: int) -> None:
        self._recipe, self.where = recipe, where
        self._threads = ThreadPoolExecutor(at_once)
        self._lock = threading.Lock()
        self._life = 0  # how often it was lost
        self._object: Any = None
        self._ended: list[Any] = []  # those that were lost, which have threads here to end
        self.n_calls = 0

    def lose(self) -> None:
        """As if its machine had ended: what runs is answered by LostError, and the object is made again when needed."""
        with self._lock:
            self._life += 1
            self._ended.append(self._object)
            self._object = None

    def call(self, method: str, *arguments: Any) -> Pending:
        answer: Future[Any] = Future()
        self.n_calls += 1
        life = self._life
        self._threads.submit(self._answer, answer, life, method, arguments)
        return answer

    def stream(self, method: str, *arguments: Any) -> Iterator[Any]:
        life, given = self._life, pickle.loads(pickle.dumps(arguments))
        for item in getattr(self._made(), method)(*given):
            self._check(life)
            yield pickle.loads(pickle.dumps(item))
        self._check(life)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self._made()
                return
            except LostError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def restart(self) -> None:
        self.lose()

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        ended, self._object, self._ended = [*self._ended, self._object], None, []
        for each in ended:
            if hasattr(each, "close"):
                each.close()

    def _answer(self, answer: Future[Any], life: int, method: str, arguments: Sequence[Any]) -> None:
        try:
            given = [a.result() if isinstance(a, Future) else pickle.loads(pickle.dumps(a)) for a in arguments]
            self._check(life)
            found = getattr(self._made(), method)(*given)
            self._check(life)
            answer.set_result(pickle.loads(pickle.dumps(found)))
        except SystemExit:
            self.lose()
            answer.set_exception(self._lost())
        except BaseException as error:
            answer.set_exception(pickle.loads(pickle.dumps(error)))

    def _made(self) -> Any:
        with self._lock:
            if self._object is None:
                kind, arguments = pickle.loads(self._recipe)
                self._object = kind(*arguments)
            return self._object

    def _check(self, life: int) -> None:
        if life != self._life:
            raise self._lost()

    def _lost(self) -> LostError:
        return LostError("ended in the middle of its work", where=self.where)
