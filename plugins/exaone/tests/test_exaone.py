"""EXAONE 4: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestExaone(FamilySuite):
    goldens = ("exaone4", "exaone4-windows")
