"""Phi: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestPhi(FamilySuite):
    goldens = ("phi2", "phimoe")
    shapes = ("phi-3-mini",)
