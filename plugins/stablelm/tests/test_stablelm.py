"""StableLM: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestStablelm(FamilySuite):
    goldens = ("stablelm", "stablelm-parallel")
