"""The chat format: control tokens, the template that writes them, and talks as token ids.

A talk is `<|story|><|user|>request<|assistant|>reply<|end|><|user|>...`; what a system message says goes before the
first request. `<|story|>` and `<|end|>` are those of plain stories.
"""

import re

import numpy as np

from train_tiny.nouns import CLASS_OF, pattern
from train_tiny.talks import Talk
from train_tiny.vocabulary import Vocabulary

USER, ASSISTANT = "<|user|>", "<|assistant|>"
TEMPLATE = """\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set ns.system = ns.system + (message['content'] | trim) + '\n\n' -%}
  {%- elif message['role'] == 'user' -%}
    {{- '<|user|>' + ns.system + (message['content'] | trim) -}}
    {%- set ns.system = '' -%}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<|assistant|>' + (message['content'] | trim) + '<|end|>' -}}
  {%- else -%}
    {{- raise_exception('this model knows the roles system, user and assistant, not ' + message['role']) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""
LONGEST = 256  # tokens of a reply
WORD_WEIGHT = 6.0  # where a reply first has one of its talk's words, its article with it


def encode_talk(talk: Talk, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray] | None:
    """Token ids of a talk (T,), and what each counts in the loss (T,): replies and their ends only.

    None where a reply is longer than the model should ever answer.
    """
    user, assistant = vocabulary.tokenizer.token_to_id(USER), vocabulary.tokenizer.token_to_id(ASSISTANT)
    ids, weights = [vocabulary.bos], [0.0]
    for turn in talk.turns:
        request = vocabulary.tokenizer.encode(turn.request).ids
        reply = vocabulary.tokenizer.encode(turn.reply)
        if len(reply.ids) > LONGEST:
            return None
        ids += [user, *request, assistant, *reply.ids, vocabulary.eos]
        weights += [0.0] * (len(request) + 2) + word_weights(turn.reply, talk.words, reply.offsets) + [1.0]
    return np.array(ids, dtype=np.int32), np.array(weights, dtype=np.float32)


def word_weights(reply: str, words: tuple[str, ...], offsets: list[tuple[int, int]]) -> list[float]:
    """One weight for each token, whose first and last character `offsets` give."""
    spans = []
    for word in words:
        form = pattern(word).pattern if word in CLASS_OF else re.escape(word)
        spans += [match.span() for match in re.finditer(rf"\b(?:(?:an?|the) )?{form}\b", reply, re.IGNORECASE)][:1]
    touched = [any(start < stop and end > begin for begin, stop in spans) for start, end in offsets]
    return [WORD_WEIGHT if touch else 1.0 for touch in touched]
