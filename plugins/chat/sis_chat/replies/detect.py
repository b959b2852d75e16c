"""How a model writes replies, found by asking its template.

Messages with words that stand nowhere else are rendered, and what stands around the words is the format. Calls are
accepted only when the parser reads the probes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce

from attrs import evolve

from sis_chat.replies.atoms import common_prefix, common_suffix, first_mark, last_mark
from sis_chat.replies.events import calls_of, text_of
from sis_chat.replies.format import Region, ReplyFormat
from sis_chat.replies.parser import Parser
from sis_chat.replies.probe import ANSWER, ARGUMENTS, NAMES, THOUGHT, TOOLS, USER, Called, Probe, Render, Thought
from sis_chat.replies.shapes import SHAPES, with_slots
from sis_chat.replies.surroundings import after_thinking, completed
from sis_core.chat import Content, Reasoning

MAX_END = 80  # characters: what is longer tells the user's turn what to do
_TAG = re.compile(r"<([^<>/\s]+)>\s*$")


def detect(render: Render, source: str) -> ReplyFormat:
    """The reply format of a template; parts that it does not write, or that cannot be read back, are missing.

    Args:
        source: the template's text, in which a tag that ends thinking may be named without being written.
    """
    probe = Probe(render)
    begun = probe.beyond([USER], probe.tools, True, {}) or ""
    answer = probe.turn({"content": ANSWER}, probe.tools)
    if answer is None or ANSWER not in answer:
        return ReplyFormat()
    called = next((c for c in probe.called() if c is not None), None)
    thought = probe.thought(called)
    turns = [answer, *([thought.turn] if thought else []), *([called.turns[0]] if called else [])]
    header = reduce(common_prefix, [begun, *turns]) if begun else ""
    if thought is not None:
        format = _thinking(header, thought, probe.shared)
    else:
        format = _thinking_in_source(header, begun, source)
    format = _answering(format, answer, thought)
    if called is None:
        return format
    return _harmony(next((f for f in _calling(format, called) if _reads(f, called)), format))


def _harmony(format: ReplyFormat) -> ReplyFormat:
    """What models of the harmony format write beside what their template does. Source: OpenAI's harmony guide."""
    calls, start = format.calls, "<|start|>assistant"
    if calls is None or not calls.call.startswith(f"{start} to=functions.{{name}}<|channel|>"):
        return format
    also = tuple(
        f"{start}<|channel|>{channel} to=functions.{{name}}<|message|>{{arguments}}<|call|>"
        for channel in ("commentary", "analysis")
    )
    preamble = f"{start}<|channel|>commentary<|message|>"
    return evolve(format, calls=evolve(calls, also=also), also=(preamble,))


def _thinking(header: str, thought: Thought, shared: str) -> ReplyFormat:
    """The header, and what stands around a thought in a turn."""
    before = thought.turn[len(header) :].partition(THOUGHT)[0]
    if not before.strip():  # the template writes it for every reply
        begins = header or shared
        at = last_mark(begins)
        before, header = begins[at:] + before, header[:at]
    if not thought.close.strip() or not before.strip():
        return ReplyFormat(header)
    return ReplyFormat(header, reasoning=Region(before, thought.close))


def _thinking_in_source(header: str, begun: str, source: str) -> ReplyFormat:
    """The header, and tags around thoughts that the template only takes away or begins."""
    tag = _TAG.search(begun)
    name = tag[1] if tag and f"</{tag[1]}>" in source + begun else "think"
    if f"</{name}>" not in source:
        return ReplyFormat(header)
    return ReplyFormat(header.partition(f"<{name}>")[0], reasoning=Region(f"<{name}>", f"</{name}>"))


def _answering(format: ReplyFormat, answer: str, thought: Thought | None) -> ReplyFormat:
    """What stands around an answer; and of what ends a thought, the part that does not begin the answer."""
    header, reasoning = format.header, format.reasoning
    before, _, end = answer.removeprefix(header).partition(ANSWER)
    end = first_mark(end) if len(end) > MAX_END else end
    if reasoning is None:
        return evolve(format, content=Region(before), ends=(end,))
    opening = after_thinking(before, reasoning)
    if thought is None or not thought.answered:
        return evolve(format, content=Region(opening), ends=(end,))
    if opening.strip():
        shared = common_suffix(header + opening, reasoning.close)
        if shared.removesuffix(opening).strip():  # a turn for each part: the header is a part's
            header = header.removesuffix(shared.removesuffix(opening))
            opening = shared
        missing = format.header[len(header) :]
        reasoning = Region(missing + reasoning.open, reasoning.close.removesuffix(opening))
    else:
        reasoning = Region(reasoning.open, reasoning.close.strip())
    return evolve(format, header=header, reasoning=reasoning, content=Region(opening), ends=(end,))


def _calling(format: ReplyFormat, called: Called) -> Iterable[ReplyFormat]:
    """The format with calls in every shape that the turns may have, the likeliest first."""
    turns = [with_slots(turn) for turn in called.turns]
    for shape in SHAPES:
        if (found := shape(turns)) is not None:
            yield completed(found, evolve(format, arguments_as_text=called.as_text))


def _reads(format: ReplyFormat, called: Called) -> bool:
    """Whether the parser makes the calls of the probes' turns, and nothing else of them."""
    for n, turn in enumerate(called.turns, start=1):
        parser = Parser(format, TOOLS)
        events = parser.push(turn.removeprefix(format.header)) + parser.end()
        if calls_of(events) != list(zip(NAMES, ARGUMENTS, strict=True))[:n]:
            return False
        if text_of(events, Content).strip() not in ("", ANSWER) or text_of(events, Reasoning).strip():
            return False
    return True
