"""Falcon: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestFalcon(FamilySuite):
    goldens = ("falcon", "falcon-groups")
