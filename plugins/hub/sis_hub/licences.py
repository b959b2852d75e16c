"""Licences: which of them leave everyone free, and the line that is shown for those that do not."""

from __future__ import annotations

#: Identifiers of Hugging Face's model cards that stand for a free licence.
FREE = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1",
    "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0",
    "ms-pl", "mulanpsl-2.0", "ncsa", "ofl-1.1", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
})  # fmt: skip


def notice(licence: str, *, gated: bool, terms: str) -> str:
    """What to say before a download; empty for a free licence without a gate.

    Args:
        licence: the identifier, or empty where the repository states none.
        terms: where the terms can be read.
    """
    if not licence:
        return f"states no licence: ask its author before you use it ({terms})"
    if gated:
        return f"licence {licence}; who downloads it has accepted its terms: {terms}"
    return "" if licence.lower() in FREE else f"licence {licence}, which is not a free one; its terms: {terms}"
