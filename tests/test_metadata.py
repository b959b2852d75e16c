"""Typed reading of metadata: defaults, other spellings, bounds, and what was left unread."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from sis_core.errors import ModelError
from sis_core.metadata import ALIASES, HARMLESS, NEUTRAL, Metadata


def read(**values: Any) -> Metadata:
    """Metadata of the family ``x``; double underscores stand for dots."""
    return Metadata({f"x.{key.replace('__', '.')}": value for key, value in values.items()}, "x", "m.gguf")


def test_values() -> None:
    metadata = read(block_count=3, rope__freq_base=5, use_parallel_residual=False, a__text="t")
    assert metadata.integer("block_count") == 3
    assert metadata.number("rope.freq_base") == 5.0
    assert metadata.flag("use_parallel_residual") is False
    assert metadata.text("a.text") == "t"
    assert "block_count" in metadata
    assert "context_length" not in metadata


def test_defaults_are_said_where_they_are_suspicious(caplog: pytest.LogCaptureFixture) -> None:
    metadata = Metadata({"x.context_length": 131072}, "x", "m.gguf")
    with caplog.at_level(logging.INFO):
        assert metadata.number("rope.freq_base", 1e4) == metadata.number("rope.freq_base", 1e4) == 1e4
        assert metadata.per_layer("feed_forward_length", 2, (8, 8)) == (8, 8)
        assert not metadata.flag("use_parallel_residual", False)
        metadata.report_defaults()
    missing = "m.gguf: missing keys, with what is used instead: "
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", missing + "x.rope.freq_base=10000.0"),
        ("INFO", missing + "x.feed_forward_length=8"),
    ]


def test_a_short_context_needs_no_base(caplog: pytest.LogCaptureFixture) -> None:
    metadata = Metadata({"x.context_length": 2048}, "x", "m.gguf")
    assert metadata.number("rope.freq_base", 1e4) == 1e4
    metadata.report_defaults()
    assert caplog.messages == []


@pytest.mark.parametrize(("key", "values"), NEUTRAL.items())
def test_a_value_that_asks_for_nothing_need_not_be_read(key: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert Metadata({f"x.{key}": value}, "x").unread() == []
    assert Metadata({f"x.{key}": 0.37}, "x").unread() == [f"x.{key}"]


def test_keys_that_the_user_passes_over() -> None:
    values = {"x.clever": 3, "x.other": 4}
    for ignored in ("clever", "x.clever"):
        metadata = Metadata(values, "x", ignored=[ignored])
        assert (metadata.unread(), metadata.passed_over()) == (["x.other"], ["x.clever"])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelError, match=r"m\.gguf: the key x\.block_count is missing\. Convert the model again"):
        read().integer("block_count")


@pytest.mark.parametrize(("key", "spellings"), ALIASES.items())
def test_other_spellings(key: str, spellings: tuple[str, ...]) -> None:
    for spelling in spellings:
        for name in (spelling, f"x.{spelling}"):
            metadata = Metadata({name: 7}, "x")
            assert metadata.integer(key) == 7
            assert metadata.unread() == []


def test_spellings_that_contradict_each_other() -> None:
    both = {"x.block_count": 2, "num_hidden_layers": 3}
    with pytest.raises(
        ModelError, match=r"keys x\.block_count \(2\) and num_hidden_layers \(3\) mean the same and dif"
    ):
        Metadata(both, "x").integer("block_count")
    assert Metadata(both | {"num_hidden_layers": 2}, "x").integer("block_count") == 2


@pytest.mark.parametrize("value", [0, -1, 11, 2**40])
def test_integer_bounds(value: int) -> None:
    with pytest.raises(ModelError, match=rf"key x\.k is {value}, but must be from 1 to 10"):
        read(k=value).integer("k", maximum=10)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf, 3.0])
def test_number_bounds(value: float) -> None:
    with pytest.raises(ModelError, match=r"key x\.k is .*, but must be above 0 and below 3"):
        read(k=value).number("k", below=3.0)


@pytest.mark.parametrize("value", [None, 0, 0.0])
def test_absent_and_zero_mean_off(value: Any) -> None:
    metadata = read() if value is None else read(k=value)
    assert metadata.maybe_number("k") is None
    assert metadata.maybe_integer("k") is None
    assert read(k=3).maybe_integer("k") == read(k=3).maybe_number("k") == 3
    assert metadata.maybe_number("k", 2.5) == (2.5 if value is None else None)
    assert metadata.maybe_integer("k", 2) == (2 if value is None else None)
    with pytest.raises(ModelError, match=r"x\.k is -3"):
        read(k=-3).maybe_integer("k")
    with pytest.raises(ModelError, match=r"x\.k is -3"):
        read(k=-3).maybe_number("k", 2.5)


@pytest.mark.parametrize(
    ("ask", "value", "says"),
    [
        ("integer", "2", r"must be an integer, not the string '2'"),
        ("integer", 2.0, r"must be an integer, not 2\.0"),
        ("integer", True, r"must be an integer, not True"),
        ("number", "2", r"must be a number, not the string '2'"),
        ("number", False, r"must be a number, not False"),
        ("number", [1.0], r"must be a number, not an array of 1"),
        ("flag", 1, r"must be true or false, not 1"),
        ("text", 1, r"must be a string, not 1"),
        ("text", b"x", r"must be a string, not an array of 1"),
    ],
)
def test_wrong_types(ask: str, value: Any, says: str) -> None:
    with pytest.raises(ModelError, match=rf"the key x\.k {says}"):
        getattr(read(k=value), ask)("k")


def test_per_layer() -> None:
    assert read(k=4).per_layer("k", 3) == (4, 4, 4)
    assert read(k=[1, 2, 3]).per_layer("k", 3) == (1, 2, 3)
    assert read().per_layer("k", 2, (5, 6)) == (5, 6)
    for value, says in (
        ([1, 2], "has 2 values for 3 layers"),
        ([1, 0, 2], "is 0 for layer 1, but must be an integer of at least 1"),
        ([1, 2, 2.5], r"is 2\.5 for layer 2"),
        ([True, 1, 1], "is True for layer 0"),
        ("abc", "must be an integer, not the string 'abc'"),
        (0, "is 0, but must be from 1"),
    ):
        with pytest.raises(ModelError, match=says):
            read(k=value).per_layer("k", 3)


def test_pattern() -> None:
    assert read().pattern("k", 5, 2) == (True, False, True, False, True)
    assert read(k=3).pattern("k", 5, 2) == (True, True, False, True, True)
    assert read(k=1).pattern("k", 2, 2) == (False, False)
    assert read(k=0).pattern("k", 2, 2) == (True, True)
    assert read(k=[True, False, 1, 0]).pattern("k", 4, 2) == (True, False, True, False)
    with pytest.raises(ModelError, match="has 2 values for 4 layers"):
        read(k=[True, False]).pattern("k", 4, 2)
    with pytest.raises(ModelError, match="is 2 for layer 1, but must be true or false"):
        read(k=[1, 2]).pattern("k", 2, 2)


def test_unread() -> None:
    metadata = read(b=2, off=0, no=False, empty="", nothing=0.0, c=[1], block_count=2, ignored=9)
    metadata.values = {**metadata.values, "general.name": "n", "y.z": 1}
    metadata.integer("block_count")
    metadata.ignore("ignored", "absent")
    assert metadata.unread() == ["x.b", "x.c"]


@pytest.mark.parametrize("key", HARMLESS)
def test_harmless_keys_need_no_reader(key: str) -> None:
    assert Metadata({f"x.{key}": 5}, "x").unread() == []
