"""Formats of dates and times as patterns: llguidance's allow the 29th of February in any year, and a second 60.

Source: RFC 3339, section 5.6. A leap second exists at a few moments only and is left out, and so is the year 0000,
which has no date in most libraries.
"""

from __future__ import annotations

from sis_grammar.rewriting import Schema, rewritten

YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DAYS_31 = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
DAYS_30 = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
DATE = f"(?:{YEAR}-(?:{DAYS_31}|{DAYS_30}|02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP}-02-29)"
HOUR_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
TIME = rf"{HOUR_MINUTE}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:[Zz]|[+-]{HOUR_MINUTE})"
PATTERNS = {"date": f"^{DATE}$", "time": f"^{TIME}$", "date-time": f"^{DATE}[Tt]{TIME}$"}


def with_dates(schema: Schema) -> Schema:
    """A copy of ``schema`` with a pattern in place of each ``format`` that names a date or a time."""
    made: Schema = rewritten(schema, _with_pattern)
    return made


def _with_pattern(part: Schema) -> Schema:
    name = part.get("format")
    if not isinstance(name, str) or name not in PATTERNS:
        return part
    rest, pattern = {key: value for key, value in part.items() if key != "format"}, PATTERNS[name]
    if "pattern" not in rest:
        return {**rest, "pattern": pattern}
    others = rest.get("allOf", [])
    return {**rest, "allOf": [*others, {"pattern": pattern}]} if isinstance(others, list) else part
