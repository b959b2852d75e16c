"""Objects on other machines: what runs there is said by who makes them, how they get there and back by a plugin.

An object is made from a class or a function that the other machine can import, and from plain data: what pickle takes.
It is called by the names of its methods. Where its process or its machine ends, it is made again from the same data,
there or elsewhere, and has forgotten everything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

from sis_core.closing import Closing


class Pending(Protocol):
    """The answer to a call, when it comes."""

    def result(self) -> Any:
        """Wait for it. What the method raised is raised here; LostError where it or its machine ended first."""


class Remote(Protocol):
    """An object on another machine. Any thread may call it; calls of one thread begin in their order.

    Attributes:
        where: the machine that it was made for, to be shown to people.
    """

    where: str

    def call(self, method: str, *arguments: Any) -> Pending:
        """Begin a call. An argument that is itself a `Pending` of these machines stands for its result, which goes
        straight from one machine to the other; where that is an error, the call fails with it."""

    def stream(self, method: str, *arguments: Any) -> Iterator[Any]:
        """Call a method that is a generator: what it yields, as it comes. LostError where the object ends
        before the generator. Nobody tells that one when the iterator is closed early."""

    def wait(self, seconds: float) -> None:
        """Until the object is there, made again where it was lost; LostError when that takes longer.

        Raises what making it raises.
        """

    def restart(self) -> None:
        """End its process, whatever it does: what it was answering ends with LostError, and it is made again."""

    def close(self) -> None:
        """End it. Closing twice is no error."""


class Machines(Closing):
    """The machines of a cluster that was joined; a context manager.

    Attributes:
        names: one for each machine, this one first where it is among them.
    """

    names: Sequence[str]

    @abstractmethod
    def make(self, kind: Callable[..., Any], *arguments: Any, on: int = 0, at_once: int = 1) -> Remote:
        """Begin to make ``kind(*arguments)`` on machine ``on`` of `names`.

        Args:
            at_once: calls that it may serve beside each other, each on a thread of its own.
        """

    @abstractmethod
    def close(self) -> None:
        """End the objects that were made, and leave the cluster. Closing twice is no error."""


class Cluster(ABC):
    """A way to reach other machines.

    Attributes:
        name: unique among clusters.
    """

    name: ClassVar[str]

    @abstractmethod
    def join(self, address: str = "") -> Machines:
        """Connect to the cluster at ``address``; empty for the one that its own settings name, else this machine alone.

        Raises:
            SisError: there is none, or it does not let us in; the message says what to do.
        """
