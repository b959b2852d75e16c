"""Command R and R7B: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestCohere(FamilySuite):
    goldens = ("cohere2", "command-r", "command-r-norms")
