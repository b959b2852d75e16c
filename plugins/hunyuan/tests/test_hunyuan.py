"""Hunyuan: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestHunyuan(FamilySuite):
    goldens = ("hunyuan-dense",)
