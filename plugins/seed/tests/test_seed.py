"""Seed-OSS: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestSeed(FamilySuite):
    goldens = ("seed_oss",)
