"""Drafters, one file each. What they are for is in the README."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.drafter import Drafter
from sis_drafters.draft_model import DraftModel
from sis_drafters.lookup import Lookup
from sis_drafters.suffix import Suffix


@hookimpl
def sis_register_drafters() -> list[type[Drafter]]:
    return [Lookup, Suffix, DraftModel]
