"""GLM-4 and GLM-4.5: logits of other programs, and what every family promises."""

from family_suite import FamilySuite


class TestGlm(FamilySuite):
    goldens = ("glm4", "glm4moe")
