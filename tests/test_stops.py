"""Stop strings, however the text is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sis_core.texts.stops import StopFilter


def filtered(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    stop_filter, out = StopFilter(stops), ""
    for piece in pieces:
        out += stop_filter.push(piece)
        if stop_filter.found:
            return out, stop_filter.found
    return out + stop_filter.flush(), stop_filter.found


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    places = [text.find(stop) for stop in stops if stop in text]
    found, stop = filtered(pieces, stops)
    if not places:
        assert (found, stop) == (text, None)
    else:  # a stop that is complete early may win over a longer one that begins before it
        assert stop in stops
        assert text.startswith(found + stop)
        assert not any(other in found for other in stops)


def test_what_could_become_a_stop_is_held_back() -> None:
    stop_filter = StopFilter(["END"])
    assert [stop_filter.push(piece) for piece in ("say E", "N", "O. EN", "D!")] == ["say ", "", "ENO. ", ""]
    assert stop_filter.found == "END"


def test_flush_gives_what_was_held_back() -> None:
    stop_filter = StopFilter(["END"])
    assert stop_filter.push("the EN") + stop_filter.flush("") == "the EN"
