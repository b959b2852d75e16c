"""OLMo 2, 3 and OLMoE: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestOlmo(FamilySuite):
    goldens = ("olmo2", "olmo2-windows", "olmoe")
