"""The LLaMA family: logits of other programs, and what every family promises."""

from pathlib import Path

import pytest
from family_suite import FamilySuite


class TestLlama(FamilySuite):
    goldens = (
        "arcee",
        "baichuan",
        "baichuan-alibi",
        "internlm2",
        "llama",
        "llama-experts",
        "llama4",
        "mistral3",
        "smollm3",
    )
    shapes = ("llama-3.2-1b",)  # divisors of its frequencies


class TestManyLayers(FamilySuite):
    """Baichuan 13B, known by its 40 layers: too many for the kit in every run."""

    goldens = ("baichuan-alibi",)

    @pytest.mark.full
    def test_what_every_family_promises(self, name: str, tmp_path: Path) -> None:
        super().test_what_every_family_promises(name, tmp_path)
