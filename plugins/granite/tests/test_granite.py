"""Granite: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestGranite(FamilySuite):
    goldens = ("granite", "granitemoe", "granitemoe-shared")
