"""LLaMA's block under other names: InternLM 2 and Baichuan 7B.

Source: Cai et al. 2024, "InternLM2 Technical Report"; Yang et al. 2023, "Baichuan 2: Open Large-scale Language Models".
"""

from sis_core.architecture import NOT_IMPLEMENTED, Architecture
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_llama.llama import Llama, LlamaConfig

N_LAYER_13B = 40


class InternLM2(Llama):
    names = ("internlm2",)

    def from_hugging_face(self, config: LlamaConfig, role: str, weight: Weight) -> Weight:
        """Refused: the original has q, k and v in one tensor, group by group."""
        return Architecture.from_hugging_face(self, config, role, weight)


class Baichuan(InternLM2):
    names = ("baichuan",)

    def config(self, metadata: Metadata, n_vocab: int) -> LlamaConfig:
        """ModelError for the 13B, which has ALiBi; its files do not say so, but for their number of layers."""
        config = super().config(metadata, n_vocab)
        if config.n_layer == N_LAYER_13B:
            raise ModelError(
                f"Baichuan with {N_LAYER_13B} layers is the 13B, whose attention no installed family implements",
                where=metadata.where,
                fix=NOT_IMPLEMENTED,
            )
        return config
