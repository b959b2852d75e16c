"""Pre-norm blocks with grouped attention, rotary positions and a gated feed-forward."""

from __future__ import annotations

from attrs import frozen

from sis_core.architecture import Architecture, ModelConfig, common_config, rope_dimensions
from sis_core.block import KV, Attention, Block, Dense, Embedding, FeedForward, Head, Residual, Rope, rope_frequencies
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.tensors import Tensors


@frozen
class LlamaConfig(ModelConfig):
    """``rope_scale`` is 1 / factor of linear scaling; ``n_rot`` the rotated values of each head."""

    n_rot: int = 0
    rope_scale: float = 1.0


class Llama(Architecture):
    names = ("llama",)

    def config(self, metadata: Metadata, n_vocab: int) -> LlamaConfig:
        common = common_config(metadata, n_vocab)
        scaling = metadata.text("rope.scaling.type", "none") if "rope.scaling.type" in metadata else "none"
        if scaling not in ("none", "linear"):
            raise ModelError(
                f"rope scaling {scaling!r} is not implemented for {metadata.architecture}", where=metadata.where
            )
        scale = 1 / metadata.number("rope.scaling.factor") if scaling == "linear" else 1.0
        return LlamaConfig(**common, n_rot=rope_dimensions(metadata, common["head_dim"]), rope_scale=scale)

    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding:
        return Embedding(tensors.matrix("token_embd.weight", config.n_vocab, config.n_embd))

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        assert isinstance(config, LlamaConfig)
        n, d, heads, heads_kv = config.n_embd, config.head_dim, config.n_head[i], config.n_head_kv[i]
        factors = tensors.maybe_vector("rope_freqs.weight", config.n_rot // 2)
        frequencies = rope_frequencies(
            config.n_rot, config.rope_theta, scale=config.rope_scale, factors=factors.dequantize() if factors else None
        )
        attention = Attention(
            q=tensors.dense(f"blk.{i}.attn_q", heads * d, n),
            k=tensors.dense(f"blk.{i}.attn_k", heads_kv * d, n),
            v=tensors.dense(f"blk.{i}.attn_v", heads_kv * d, n),
            out=tensors.dense(f"blk.{i}.attn_output", n, heads * d),
            n_head=heads,
            n_head_kv=heads_kv,
            head_dim=d,
            scale=d**-0.5,
            rope=Rope(frequencies, "norm"),
        )
        feed_forward = FeedForward(
            gate=tensors.dense(f"blk.{i}.ffn_gate", config.n_ff[i], n),
            up=tensors.dense(f"blk.{i}.ffn_up", config.n_ff[i], n),
            down=tensors.dense(f"blk.{i}.ffn_down", n, config.n_ff[i]),
            activation="silu",
        )
        return Block(
            (
                Residual(((tensors.rms_norm(f"blk.{i}.attn_norm", n, config.norm_eps), attention),)),
                Residual(((tensors.rms_norm(f"blk.{i}.ffn_norm", n, config.norm_eps), feed_forward),)),
            ),
            KV(heads_kv, d, d),
        )

    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        norm = tensors.rms_norm("output_norm", config.n_embd, config.norm_eps)
        tied = "output.weight" not in tensors
        weight = tensors.matrix("token_embd.weight" if tied else "output.weight", config.n_vocab, config.n_embd)
        return Head(norm, Dense(weight))
