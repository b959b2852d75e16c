"""The shapes in which a call can be written, each found in turns that hold the calls of `sis_chat.replies.probe`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from sis_chat.replies.atoms import atoms, common_suffix
from sis_chat.replies.format import Calls
from sis_chat.replies.probe import ARGUMENTS, IDS, NAMES


@frozen
class Found:
    """A call as it was found in the turns: what is around it, still in one piece."""

    calls: Calls  # its `call` is the inner part, from the first slot to the last
    before: str
    after: str
    between: str | None  # from the end of the first call to the second


def json_calls(turns: Sequence[str]) -> Found | None:
    found = _json_at(turns[0], NAMES[0])
    if found is None or "valuea" not in json.dumps(found[2]):
        return None
    start, end, value = found
    listed = isinstance(value, list)
    item = value[0] if listed and value else value
    calls = _keys(item)
    if calls is None:
        return None
    between = None
    if len(turns) > 1 and not listed:
        second = _json_at(turns[1][end:], NAMES[1])
        if second is None:
            return None
        between = turns[1][end : end + second[0]]
    return Found(evolve(calls, listed=listed), turns[0][:start], turns[0][end:], between)


def _keys(item: Any) -> Calls | None:
    """The keys of a call's object."""
    if not isinstance(item, dict):
        return None
    if list(item) == [NAMES[0]]:
        return Calls("{arguments}", "call", name_key="", arguments_key="")
    inner_key = next((key for key, value in item.items() if isinstance(value, dict) and NAMES[0] in value.values()), "")
    inner = item[inner_key] if inner_key else item
    name = next((key for key, value in inner.items() if value == NAMES[0]), None)
    arguments = next(
        (key for key, value in inner.items() if value == ARGUMENTS[0] or _loaded(value) == ARGUMENTS[0]), None
    )
    if name is None or arguments is None:
        return None
    id_key = next((key for key, value in item.items() if value in ("{id}", "0")), "")
    return Calls("{arguments}", "call", name_key=name, arguments_key=arguments, id_key=id_key, inner_key=inner_key)


def _loaded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return None


def json_arguments(turns: Sequence[str]) -> Found | None:
    text = turns[0]
    found = _json_at(text, "valuea")
    at = text.find(NAMES[0])
    if found is None or found[2] != ARGUMENTS[0] or not 0 <= at < found[0]:
        return None
    start, end, _ = found
    before, middle = text[:at], text[at:start].replace(NAMES[0], "{name}")
    between = None
    if len(turns) > 1:
        second = _json_at(turns[1][end:], "valueb")
        if second is None:
            return None
        between, following = _cut_at_name(turns[1][end : end + second[0]])
        middle = _indexed(middle, following)
    return Found(Calls(middle + "{arguments}", "json"), before, text[end:], between)


def tags(turns: Sequence[str]) -> Found | None:
    text = turns[0]
    spans = _places(text, (NAMES[0], "alpha", "valuea", "beta", "731"))
    if spans is None:
        return None
    name, key1, value1, key2, value2 = spans
    to_key = text[name + len(NAMES[0]) : key1]
    to_value = text[key1 + 5 : value1]
    to_next = text[value1 + 6 : key2].replace("alpha", "{key}")
    to_value2 = text[key2 + 4 : value2]
    rest = text[value2 + 3 :].replace("beta", "{key}")
    open_argument = common_suffix(to_key, to_next)
    close_argument = to_next.removesuffix(open_argument)
    if not close_argument.strip() or not open_argument.strip():
        return None
    name_end = to_key.removesuffix(open_argument)
    typed, text_type = _typed(to_value, to_value2)
    if typed is None or not rest.startswith(close_argument.rstrip()):
        return None
    rest = (
        rest.removeprefix(close_argument) if rest.startswith(close_argument) else rest[len(close_argument.rstrip()) :]
    )
    argument = f"{open_argument}{{key}}{typed}{{value}}{close_argument}"
    between = None
    if len(turns) > 1:
        second = turns[1][len(text) - len(rest) :]
        at = second.rfind(NAMES[1], 0, second.find("alpha"))
        between = second[:at] if at >= 0 else None
        to_second = second[at + len(NAMES[1]) : second.find("alpha")]
        name_end = _indexed(name_end, to_second.removesuffix(open_argument))
    calls = Calls(f"{{name}}{name_end}{{arguments}}", "tags", argument=argument, text_type=text_type)
    return Found(calls, text[:name], rest, between)


def _typed(first: str, second: str) -> tuple[str | None, str]:
    """What stands between key and value, with a slot for the type where a text and a number differ."""
    if first == second:
        return first, ""
    one, other = atoms(first), atoms(second)
    differing = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or len(differing) != 1:
        return None, ""
    i = differing[0]
    return "".join([*one[:i], "{type}", *one[i + 1 :]]), one[i]


def _places(text: str, words: Sequence[str]) -> list[int] | None:
    """Where each word stands, the first (a name) at its last place before the others."""
    key = text.find(words[1], text.find(words[0]))
    at = text.rfind(words[0], 0, key) if key >= 0 else -1
    places = []
    for word in words:
        at = text.find(word, at) if at >= 0 else -1
        if at < 0:
            return None
        places.append(at)
        at += len(word)
    return places


def python(turns: Sequence[str]) -> Found | None:
    return _bracketed(turns, r"\(alpha=.*?731\)", "python", "(", ")", "")


def braces(turns: Sequence[str]) -> Found | None:
    match = re.search(r"\{alpha:(.*?)valuea(.*?),", turns[0])
    if match is None or not match[1] or match[1] != match[2]:
        return None
    return _bracketed(turns, r"\{alpha:.*?731\}", "braces", "{", "}", match[1])


def _bracketed(
    turns: Sequence[str], pattern: str, arguments: Any, opening: str, closing: str, quote: str
) -> Found | None:
    match = re.search(re.escape(NAMES[0]) + pattern, turns[0], re.DOTALL)
    if match is None:
        return None
    between = None
    if len(turns) > 1:
        at = turns[1].find(NAMES[1])
        between = turns[1][match.end() : at] if at >= 0 else None
    calls = Calls(f"{{name}}{opening}{{arguments}}{closing}", arguments, quote=quote)
    return Found(calls, turns[0][: match.start()], turns[0][match.end() :], between)


def _json_at(text: str, word: str) -> tuple[int, int, Any] | None:
    """The outermost JSON list or object that holds ``word``."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[\[{]", text):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if word in json.dumps(value):
            return match.start(), end, value
    return None


def with_slots(turn: str) -> str:
    """The turn with slots for ids."""
    for id in IDS:
        turn = turn.replace(id, "{id}")
    return turn


def with_names(text: str) -> str:
    return text.replace(NAMES[0], "{name}").replace(NAMES[1], "{name}")


def _cut_at_name(text: str) -> tuple[str, str]:
    """The text before the second name, and from it."""
    at = text.find(NAMES[1])
    return (text[:at], text[at:].replace(NAMES[1], "{name}")) if at >= 0 else (text, "")


def _indexed(first: str, second: str) -> str:
    """The first text with a slot where the second counts on."""
    one, other = atoms(first), atoms(second)
    if len(one) != len(other):
        return first
    return "".join(
        "{index}" if a.isdecimal() and b.isdecimal() and int(b) == int(a) + 1 else a
        for a, b in zip(one, other, strict=True)
    )


SHAPES = (json_calls, json_arguments, tags, python, braces)
