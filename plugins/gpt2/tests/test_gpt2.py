"""GPT-2: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestGpt2(FamilySuite):
    goldens = ("gpt2",)
