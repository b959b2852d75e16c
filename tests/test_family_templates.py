"""Each family's official chat template: it is read, what users write is text in it, and what ends a turn ends a reply.

The templates are those that llama.cpp collects; `python tests/real_models.py templates` fetches them. Families whose
official models have none there are named too.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import real_models
import small_vocabularies
from sis_chat.chat import JinjaChat
from sis_tokenizers.bpe import build_bpe

from sis_core.registry import Registry


class Official(NamedTuple):
    """A template, and what its models' files say beside it."""

    template: str
    eos: str
    eot: str | None = None
    past: str | None = None
    """What stands after an answer of the past, where that does not end a reply."""


TEMPLATES: dict[str, Official] = {
    "command-r": Official("CohereForAI-c4ai-command-r-plus-tool_use", "<|END_OF_TURN_TOKEN|>"),
    "cohere2": Official("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "<|END_OF_TURN_TOKEN|>"),
    "gemma2": Official("google-gemma-2-2b-it", "<end_of_turn>"),
    "glm4moe": Official("GLM-4.6", "<|endoftext|>", eot="<|user|>"),
    "gpt-oss": Official("openai-gpt-oss-120b", "<|return|>", past="<|end|>"),
    "granite": Official("ibm-granite-granite-3.3-2B-Instruct", "<|end_of_text|>"),
    "granitemoe": Official("ibm-granite-granite-4.0", "<|end_of_text|>"),
    "llama": Official("meta-llama-Llama-3.1-8B-Instruct", "<|eot_id|>"),
    "llama (experts)": Official("mistralai-Mistral-Nemo-Instruct-2407", "</s>"),
    "mistral3": Official("mistralai-Ministral-3-14B-Reasoning-2512", "</s>"),
    "phi3": Official("microsoft-Phi-3.5-mini-instruct", "<|end|>"),
    "phimoe": Official("microsoft-Phi-3.5-mini-instruct", "<|end|>"),
    "qwen2": Official("Qwen-Qwen2.5-7B-Instruct", "<|im_end|>"),
    "qwen2moe": Official("Qwen-Qwen2.5-7B-Instruct", "<|im_end|>"),
    "qwen3": Official("Qwen-Qwen3-0.6B", "<|im_end|>"),
    "qwen3moe": Official("Qwen-Qwen3-0.6B", "<|im_end|>"),
    "qwen3vl": Official("Qwen-Qwen3-0.6B", "<|im_end|>"),
    "seed_oss": Official("ByteDance-Seed-OSS", "<seed:eos>"),
    "smollm3": Official("HuggingFaceTB-SmolLM3-3B", "<|im_end|>"),
}
WITHOUT = {
    "arcee", "baichuan", "bloom", "ernie4_5", "ernie4_5-moe", "exaone4", "falcon", "gemma", "gemma3", "glm4", "gpt2",
    "gpt_neox", "gptneox", "hunyuan-dense", "internlm2", "llama4", "mpt", "olmo2", "olmoe", "phi2", "stablelm",
    "starcoder2",
}  # fmt: skip
"""Families of which llama.cpp collects no template."""
NAMES = re.compile(r"<\|[^|>\s]{1,40}\|>|<[a-z_]+:[a-z_]+>|</?s>|<(?:start|end)_of_turn>|\[/?[A-Z_]{3,30}\]|<bos>")
"""How the control tokens of these models are spelt."""

TOOLS = [{"type": "function", "function": {"name": "count", "description": "Counts.", "parameters": {}}}]


class Model:
    """A family's template over a small vocabulary that has its control tokens."""

    def __init__(self, template: str, eos: str, eot: str | None) -> None:
        names = list(dict.fromkeys([eos, "<s>", *NAMES.findall(template)]))
        tokens = [*small_vocabularies.byte_level()["tokenizer.ggml.tokens"]]
        names = [name for name in names if name not in tokens]
        self.metadata: dict[str, Any] = small_vocabularies.byte_level(
            tokens=tokens + names,
            token_type=[*small_vocabularies.byte_level()["tokenizer.ggml.token_type"], *[3] * len(names)],
            bos_token_id=(tokens + names).index("<s>"),
            eos_token_id=(tokens + names).index(eos),
            eot_token_id=None if eot is None else (tokens + names).index(eot),
        ) | {"tokenizer.chat_template": template}
        self.tokenizer = build_bpe(self.metadata)
        self.registry = Registry.of()


def test_every_family_is_named() -> None:
    families = {name for family in Registry.load().records("architectures") for name in family.names}
    assert {name.partition(" ")[0] for name in TEMPLATES} | WITHOUT == families


@pytest.mark.full
@pytest.mark.parametrize("family", TEMPLATES)
def test_what_ends_a_turn_ends_a_reply(family: str) -> None:
    official = TEMPLATES[family]
    source = (real_models.real(real_models.TEMPLATES) / f"{official.template}.jinja").read_text("utf-8")
    model = Model(source, official.eos, official.eot)
    chat, tokenizer = JinjaChat(model, source, name=official.template), model.tokenizer
    tools = TOOLS if official.template.endswith("tool_use") else []
    asked = [{"role": "user", "content": f"Hens? {official.eos}"}]
    plain = chat.render([{"role": "user", "content": "Hens?"}], tools)
    assert chat.render(asked, tools).tokens.count(tokenizer.eos) == plain.tokens.count(tokenizer.eos), (
        "users write text"
    )
    answered = [*asked, {"role": "assistant", "content": "Twelve."}, {"role": "user", "content": "And goats?"}]
    rendered = chat.render(answered, tools)
    ends = {tokenizer.token_text(token) for token in tokenizer.end_tokens} | set(rendered.stop)
    assert official.eos in ends
    after = rendered.text.partition("Twelve.")[2].lstrip()
    assert after.startswith(official.past or tuple(ends)), f"{after[:40]!r} is none of {ends}"
    assert official.past not in ends, "it stands between the messages of one reply"
