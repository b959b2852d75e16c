"""The LLaMA family: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestLlama(FamilySuite):
    goldens = ("arcee", "baichuan", "internlm2", "llama", "llama-experts", "llama4", "mistral3", "smollm3")
    shapes = ("llama-3.2-1b",)  # divisors of its frequencies
