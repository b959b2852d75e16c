"""What stands around a call, told apart: what is around each call, around all of them, and around the turn."""

from __future__ import annotations

from attrs import evolve

from sis_chat.replies.atoms import atoms, common_prefix, common_suffix, first_mark, is_mark
from sis_chat.replies.format import Region, ReplyFormat
from sis_chat.replies.probe import ANSWER
from sis_chat.replies.shapes import Found, with_names


def after_thinking(text: str, reasoning: Region) -> str:
    """What is left of the text before an answer or a call without the tags around no thought."""
    close = reasoning.close.strip()
    for tag in (close, atoms(close)[0] if close else ""):
        if tag and tag in text:
            return text.rpartition(tag)[2].lstrip()
    return text.removeprefix(reasoning.open) if reasoning.open.strip() else text


def completed(found: Found, format: ReplyFormat) -> ReplyFormat:
    """The format with the call's surroundings told apart: what is around each, and what is around all."""
    format, before = _before(found, format)
    after = found.after.replace(ANSWER, "")
    if found.between is None or found.calls.listed:
        header, opening, closing = format.header, before, ""
    else:
        header, opening, closing = _around_each(format.header, before, after, with_names(found.between))
    first, rest = before.removesuffix(opening), after.removeprefix(closing)
    last, ends = _ended(first or before, rest, format.ends)
    if found.calls.listed:
        calls = evolve(found.calls, section=Region(before, last))
    elif found.between is None:
        calls = evolve(found.calls, call=f"{opening}{found.calls.call}{last}")
    else:
        calls = evolve(found.calls, call=f"{opening}{found.calls.call}{closing}")
        if first.strip():
            calls = evolve(calls, section=Region(first, last))
        elif last.strip():  # nothing opened a section, so that this ends the turn
            ends = (*ends, last)
    return evolve(_moved(format, header), calls=calls, ends=ends)


def _before(found: Found, format: ReplyFormat) -> tuple[ReplyFormat, str]:
    """The text before the first call without what is another part's; the format, where an answer is closed there."""
    before = with_names(found.before.removeprefix(format.header).replace(ANSWER, ""))
    if format.reasoning is not None:
        before = after_thinking(before, format.reasoning)
    for region in (format.content, format.reasoning):
        if region is not None and region.open.strip():
            before = before.removeprefix(region.open)
    end = format.ends[0]
    closing = common_prefix(end, before)
    if not closing.strip() or before == closing:
        return format, before
    content = evolve(format.content, close=closing)
    return evolve(format, content=content, ends=(end.removeprefix(closing),)), before.removeprefix(closing)


def _around_each(header: str, before: str, after: str, between: str) -> tuple[str, str, str]:
    """The header, which is shorter where every call has a turn of its own, and what opens and closes a call."""
    opening = common_suffix(header + before, between)
    more = opening.removesuffix(before) if len(opening) > len(before) else ""
    if more.strip():
        header = header.removesuffix(more)
    elif more:
        opening = before
    return header, opening, common_prefix(between.removesuffix(opening), after)


def _ended(opening: str, rest: str, ends: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What closes a section, told from what ends the turn; and all that ends one."""
    candidates = (*ends, common_suffix(rest, ends[0]))
    end = next((e for e in candidates if e.strip() and e.strip() in rest), "")
    inner = rest.partition(end.strip())[0] if end else rest
    last = _closing(opening, inner)
    found = (end, first_mark(inner.removeprefix(last)))
    return last, (*ends, *(e for e in dict.fromkeys(found) if e.strip() and e not in ends))


def _closing(opening: str, after: str) -> str:
    """What ends a section, without what the template writes behind its closing tag."""
    tag = opening.strip()
    return first_mark(after) if atoms(tag) == [tag] and is_mark(after.lstrip()[:3]) else after


def _moved(format: ReplyFormat, header: str) -> ReplyFormat:
    """The format with a shorter header: what it lost begins the answer and the thought."""
    lost = format.header[len(header) :]
    if not lost:
        return format
    content, reasoning = format.content, format.reasoning
    return evolve(
        format,
        header=header,
        content=evolve(content, open=lost + content.open) if content.open.strip() else content,
        reasoning=reasoning and evolve(reasoning, open=lost + reasoning.open),
    )
