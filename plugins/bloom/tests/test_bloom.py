"""BLOOM and MPT: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestBloom(FamilySuite):
    goldens = ("bloom", "mpt")
