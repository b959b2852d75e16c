"""ERNIE 4.5: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestErnie(FamilySuite):
    goldens = ("ernie4_5", "ernie4_5-moe")
