"""Dates and times are such that exist."""

from __future__ import annotations

import calendar
import datetime
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sis_grammar.dates import PATTERNS

from sis_core.sampler import SamplerState

Started = Callable[..., SamplerState]
Follow = Callable[[SamplerState, int], tuple[list[int], bytes]]


def test_every_date_and_no_other() -> None:
    """All years that differ in a way that matters, all months, all days up to 32."""
    pattern = re.compile(PATTERNS["date"])
    for year in (0, 1, 4, 10, 100, 104, 399, 400, 1000, 1900, 1996, 1999, 2000, 2023, 2024, 2100, 2400, 9996, 9999):
        for month in range(14):
            for day in range(33):
                exists = year and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
                assert bool(pattern.search(f"{year:04}-{month:02}-{day:02}")) == bool(exists)
    assert not pattern.search("2024-1-01")


def test_leap_years() -> None:
    pattern = re.compile(PATTERNS["date"])
    found = {year for year in range(10_000) if pattern.search(f"{year:04}-02-29")}
    assert found == {year for year in range(1, 10_000) if calendar.isleap(year)}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("00:00:00Z", True), ("23:59:59.123456789+23:59", True), ("12:00:00z", True), ("12:00:00-05:30", True),
        ("24:00:00Z", False), ("12:60:00Z", False), ("12:00:60Z", False), ("12:00Z", False), ("12:00:00", False),
        ("12:00:00+24:00", False), ("12:00:00.Z", False),
    ],
)  # fmt: skip
def test_times(text: str, fits: bool) -> None:
    assert bool(re.search(PATTERNS["time"], text)) == fits
    assert bool(re.search(PATTERNS["date-time"], "2024-02-29T" + text)) == fits


@pytest.mark.parametrize("beside", [{}, {"pattern": "^2"}, {"pattern": "^2", "allOf": [{"pattern": "[1-9]"}]}])
@pytest.mark.parametrize("name", ["date", "date-time"])
def test_texts(name: str, beside: dict[str, Any], start: Started, follow: Follow) -> None:
    state = start(schema={"type": "string", "format": name, **beside})
    for seed in range(10):
        text = json.loads(follow(state.copy(), seed)[1])
        datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()))
        assert text.startswith("2") or not beside
