"""Where sis-hub keeps what is not huggingface_hub's."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """SIS_CACHE, or the user's cache folder for sis."""
    if named := os.environ.get("SIS_CACHE"):
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("sis", appauthor=False)
