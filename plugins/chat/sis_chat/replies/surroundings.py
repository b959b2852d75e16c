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
    header, after = format.header, found.after.replace(ANSWER, "")
    before = with_names(found.before.removeprefix(header).replace(ANSWER, ""))
    if format.reasoning is not None:
        before = after_thinking(before, format.reasoning)
    for region in (format.content, format.reasoning):
        if region is not None and region.open.strip():
            before = before.removeprefix(region.open)
    end = format.ends[0]
    closing = common_prefix(end, before)  # of the answer, before its calls
    if closing.strip() and before != closing:
        before, end = before.removeprefix(closing), end.removeprefix(closing)
        format = evolve(format, content=evolve(format.content, close=closing), ends=(end,))
    if found.calls.listed or found.between is None:
        opening, closing, section = before, "", Region()
        rest = after
    else:
        between = with_names(found.between)
        opening = common_suffix(header + before, between)
        if len(opening) > len(before):
            if opening[: len(opening) - len(before)].strip():
                header = header[: len(header) - (len(opening) - len(before))]
            else:
                opening = before
        closing = common_prefix(between.removesuffix(opening), after)
        section = Region(before.removesuffix(opening))
        rest = after.removeprefix(closing)
    ended = next((e for e in (*format.ends, common_suffix(rest, end)) if e.strip() and e.strip() in rest), None)
    inner = rest.partition(ended.strip())[0] if ended else rest
    closing_section = _closing(section.open or before, inner)
    behind, inner = inner.removeprefix(closing_section), closing_section
    if found.calls.listed:
        calls = evolve(found.calls, section=Region(before, inner))
    elif section.open.strip():
        calls = evolve(found.calls, call=f"{opening}{found.calls.call}{closing}", section=Region(section.open, inner))
    elif found.between is None:
        calls = evolve(found.calls, call=f"{opening}{found.calls.call}{inner}")
    else:
        calls = evolve(found.calls, call=f"{opening}{found.calls.call}{closing}")
        if inner.strip():
            format = evolve(format, ends=(*format.ends, inner))
    for found_end in (ended, first_mark(behind)):
        if found_end and found_end.strip() and found_end not in format.ends:
            format = evolve(format, ends=(*format.ends, found_end))
    return evolve(_moved(format, header), calls=calls)


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
