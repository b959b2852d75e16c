"""What Ray is told by its environment before it is imported: who is let in, and that it reports nothing.

Facts: Ray's documentation, "Token authentication" and "Usage stats collection" (docs.ray.io).
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from sis_core.errors import SourceError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
UV_RUN = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"  # unless it is 0, a driver under `uv run` sends its folder to all machines
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # unless it is 0, Ray replaces 127.0.0.1 by an address on the network
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def default_token_file() -> Path:
    """Where Ray looks for a token that no variable gives; nothing here ever writes it."""
    return Path.home() / ".ray" / "auth_token"


def is_loopback(address: str) -> bool:
    """Whether an address, of whatever form, is this machine's own."""
    host = address.rpartition("://")[2].rpartition(":")[0]
    return host == "localhost" or host.startswith("127.")


def prepare(*, here: bool, address: str = "") -> None:
    """Set what the user has not: tokens are asked for, nothing is reported or sent along, loopback stays loopback.

    A cluster that is started ``here`` gets a token of its own, in memory alone.

    Raises:
        SourceError: a cluster elsewhere is to be joined, and there is no token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(MODE, "token")
    os.environ.setdefault(UV_RUN, "0")
    if here or is_loopback(address):
        os.environ.setdefault(ONE_MACHINE, "0")
    if os.environ[MODE] != "token" or os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH):
        return
    if here:
        os.environ[TOKEN] = secrets.token_hex(32)
    elif not default_token_file().exists():
        raise SourceError(
            f"there is no token: neither {TOKEN} nor {TOKEN_PATH} is set, and {default_token_file()} is not there",
            where="cluster ray",
            fix="`ray get-auth-token --generate` makes one, for all machines; "
            f"a network that nobody else reaches may do with {MODE}=disabled on all of them",
        )
