"""Models that a person has given a name: a JSON file in `llm`'s folder."""

from __future__ import annotations

import json
from pathlib import Path

import llm

from sis_core.errors import SourceError


def file() -> Path:
    """Where they stand."""
    folder: str | Path = llm.user_dir()  # type: ignore[no-untyped-call]
    return Path(folder) / "sis-models.json"


def read() -> dict[str, str]:
    """References by name; SourceError for a file that is damaged."""
    try:
        found = json.loads(file().read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be read: {error}", where=str(file()), fix="mend it, or delete it") from None
    if not isinstance(found, dict) or not all(isinstance(reference, str) for reference in found.values()):
        raise SourceError("is no object of names and references", where=str(file()), fix="mend it, or delete it")
    return found


def write(models: dict[str, str]) -> None:
    """Put others in their place."""
    file().write_text(json.dumps(models, indent=2, ensure_ascii=False) + "\n", "utf-8")
