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
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def default_token_file() -> Path:
    """Where Ray looks for a token that no variable gives; nothing here ever writes it."""
    return Path.home() / ".ray" / "auth_token"


def prepare(*, here: bool) -> None:
    """Set what the user has not: tokens are asked for, nothing is reported.

    A cluster that is started ``here`` gets a token of its own, in memory alone.

    Raises:
        SourceError: a cluster elsewhere is to be joined, and there is no token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(MODE, "token")
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
