"""The LLaMA family: logits of other programs, and what every family promises."""

from pathlib import Path

import pytest
from family_suite import FamilySuite, installed, write_golden

from sis_core.errors import ModelError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model


class TestLlama(FamilySuite):
    goldens = (
        "arcee",
        "baichuan",
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


def test_llama_4_past_a_chunk_is_refused(tmp_path: Path) -> None:
    path = write_golden("llama4", tmp_path)
    with open_model(Model, path, installed(), n_ctx=8192) as model:
        assert model.config.n_ctx == 8192
    with pytest.raises(ModelError, match=r"llama4.gguf: a context of 8193 tokens needs attention in chunks of 8192"):
        open_model(Model, path, installed(), n_ctx=8193)
