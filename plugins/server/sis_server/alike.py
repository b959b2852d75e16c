"""One object on each of several machines, once it is sure that all of them do the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sis_core.cluster import Machines, Remote
from sis_core.errors import SisError
from sis_core.loading.alike import check_alike

BACK = 600.0  # seconds that a machine may take to be there, or back, with its model loaded


def start_alike(
    machines: Machines, n: int, kind: Callable[..., Any], *arguments: Any, at_once: int = 1
) -> tuple[Sequence[Remote], dict[str, str]]:
    """``n`` objects, and the identity that they have in common: what their method ``identity`` says.

    Raises:
        SisError: a machine cannot load the model, or does not do what the others do; it is named.
    """
    places = range(len(machines.names))
    remotes = [machines.make(kind, *arguments, on=i % len(places), at_once=at_once) for i in range(n)]
    identities: dict[str, dict[str, str]] = {}
    for remote in remotes:
        try:
            remote.wait(BACK)
            identities[remote.where] = remote.call("identity").result()
        except SisError as error:
            raise type(error)(error.what, where=f"{remote.where}: {error.where}", fix=error.fix) from error
    check_alike(identities)
    return remotes, identities[remotes[0].where]
