"""Kept texts against a plain model: a list that is searched from end to end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sis_core.texts.common import n_common
from sis_core.texts.prefixes import Prefixes, Scope

SCOPES = [Scope("", None), Scope("mine", None), Scope("", "poet")]
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=6)
CALLS = st.lists(st.tuples(st.sampled_from(["add", "discard", "use", "pop"]), st.sampled_from(SCOPES), TOKENS))


@given(CALLS)
def test_prefixes_are_those_of_a_plain_list(calls: list[tuple[str, Scope, list[int]]]) -> None:
    prefixes = Prefixes()
    kept: dict[int, tuple[Scope, list[int]]] = {}  # the least recently used first
    for number, (call, scope, tokens) in enumerate(calls):
        alike = {s: n_common(ids, tokens) for s, (other, ids) in kept.items() if other == scope}
        found, n = prefixes.find(scope, tokens)
        assert n == max(alike.values(), default=0)
        assert (found is None) == (n == 0)
        assert found is None or alike[found] == n
        if call == "use" and found is not None:
            prefixes.use(found)
            kept[found] = kept.pop(found)
        elif call == "pop":
            wanted = next(iter(kept), None)
            assert prefixes.pop() == wanted
            kept.pop(-1 if wanted is None else wanted, None)
        elif call == "discard":
            prefixes.discard(number)
            prefixes.discard(-1 if found is None else found)
            kept.pop(-1 if found is None else found, None)
        elif call == "add":
            gone = prefixes.add(scope, number, tokens)
            if n == len(tokens):  # the beginning of another
                assert gone == number
                again = prefixes.find(scope, tokens)[0]
                kept = {s: kept[s] for s in prefixes._recent}
                assert again in kept
            else:
                covered = {s for s, n in alike.items() if n == len(kept[s][1])}
                assert covered == ({gone} if gone is not None else set())
                kept[number] = scope, tokens
                kept.pop(-1 if gone is None else gone, None)
        assert list(prefixes._recent) == list(kept)
        assert len(prefixes) == len(kept)
        assert sum(map(len, prefixes._sorted.values())) == len(kept)
