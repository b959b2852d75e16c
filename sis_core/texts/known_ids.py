"""Ids that spell what a chat renders to, so that a cache that holds them need not read it again.

A model may spell a text otherwise than its tokenizer does. What it wrote is in the cache under the ids that it chose.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sis_core.chat import Rendered
from sis_core.texts.common import n_common
from sis_core.tokenizer import Tokenizer


def with_known(rendered: Rendered, known: Sequence[int], replies: Collection[int], tokenizer: Tokenizer) -> list[int]:
    """The ids of a rendered chat: those that are ``known`` as far as they spell the same, then the tokenizer's.

    Args:
        known: ids of an earlier state of the chat, with what the model wrote.
        replies: indices of the messages that the model wrote. In others the tokenizer's ids stay, for there a control
            token and a text that spells its name are not the same.
    """
    own = [token for segment in rendered.segments for token in segment.tokens]
    free = [
        segment.message is None or segment.message in replies for segment in rendered.segments for _ in segment.tokens
    ]
    i = j = n_common(known, own)
    same = i, j  # ends of what both spell alike, in tokens of each
    spelt, wanted = bytearray(), bytearray()  # since then
    while True:
        if len(spelt) <= len(wanted):
            if i == len(known):
                break
            spelt += tokenizer.token_bytes(known[i], skip_special=False)
            i += 1
        else:
            if j == len(own) or not (free[j] or own[j] == known[i - 1]):
                break
            wanted += tokenizer.token_bytes(own[j], skip_special=False)
            j += 1
        if spelt == wanted:
            same = i, j
            spelt.clear()
            wanted.clear()
        elif not (spelt.startswith(wanted) or wanted.startswith(spelt)):
            break
    return [*known[: same[0]], *own[same[1] :]]
