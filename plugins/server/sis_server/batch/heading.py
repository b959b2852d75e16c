"""What a file of answers says of whom answered: it is gone on with only by the same."""

from __future__ import annotations

from collections.abc import Mapping

KEYS = ("model", "instructions", "backend")


def heading(identity: Mapping[str, str]) -> dict[str, str]:
    """Of a machine's `sis_core.loading.alike.identity`: what another run must have too."""
    return {key: identity[key] for key in KEYS}
