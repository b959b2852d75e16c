"""gpt-oss: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestGptOss(FamilySuite):
    goldens = ("gpt-oss",)
