"""Gemma: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestGemma(FamilySuite):
    goldens = ("gemma2", "gemma3")
    shapes = ("gemma-3-1b",)  # long enough for a layer without a window
