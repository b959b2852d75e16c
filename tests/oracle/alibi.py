"""transformers' LLaMA with ALiBi in place of rotations: Baichuan 13B, which transformers does not have.

Source: Press et al. 2022, "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation".
"""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import torch
from transformers.models.llama import modeling_llama


def slopes(n_head: int) -> list[float]:
    """What a key's score loses per token of distance, head by head: the paper's, with those of the next power of two in
    between where the number of heads is none."""
    whole = 2 ** math.floor(math.log2(n_head))
    first = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    return (first + [2 ** (-4 * (i + 1) / whole) for i in range(0, 2 * whole, 2)])[:n_head]


def put_alibi(model: Any) -> None:
    """Change a model in place: its rotations turn nothing, and its causal mask grows with distance."""
    losses = torch.tensor(slopes(model.config.num_attention_heads), dtype=torch.float64)[:, None, None]
    inner = model.model

    def still(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*position_ids.shape, model.config.head_dim)
        return torch.ones(shape, dtype=x.dtype), torch.zeros(shape, dtype=x.dtype)

    def mask(*_: Any, inputs_embeds: torch.Tensor, cache: Any = None, **__: Any) -> torch.Tensor:
        n, past = inputs_embeds.shape[1], 0 if cache is None else cache.get_seq_length()
        behind = torch.arange(past, past + n)[:, None] - torch.arange(past + n)[None, :]
        scores = torch.where(behind < 0, -torch.inf, -losses * behind)
        return scores[None].to(inputs_embeds.dtype)

    forward = inner.forward

    def with_mask(*arguments: Any, **options: Any) -> Any:
        with patch.object(modeling_llama, "create_causal_mask", mask):
            return forward(*arguments, **options)

    inner.rotary_emb.forward = still
    inner.forward = with_mask
