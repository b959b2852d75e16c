"""GPT-NeoX: what every family promises; its logits are held in tests/test_families.py."""

from family_suite import FamilyKit


class TestGptneox(FamilyKit):
    shapes = ("pythia-160m",)
