"""Drawing stories from the model, many at once, with the keys and values of past tokens kept."""

import torch
from torch import Tensor

from train_tiny.model import TinyLlama
from train_tiny.vocabulary import Vocabulary


class Stepper:
    """Feeds a model one token per row at a time."""

    def __init__(self, model: TinyLlama, rows: int) -> None:
        s = model.shape
        self.model, self.position = model.eval(), 0
        self.keys = torch.zeros(s.n_layer, rows, s.n_head_kv, s.n_ctx, s.head_dim)
        self.values = torch.zeros_like(self.keys)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """Token ids (B,) to the logits (B, n_vocab) of the tokens that follow."""
        model, here = self.model, slice(self.position, self.position + 1)
        x = model.token_embd(tokens[:, None])
        for i, block in enumerate(model.blocks):
            q, k, v = block.attn.project(block.attn_norm(x), model.cos[here], model.sin[here])
            self.keys[i, :, :, here], self.values[i, :, :, here] = k, v
            past = self.keys[i, :, :, : here.stop], self.values[i, :, :, : here.stop]
            x = x + block.attn.mix(q, *past, causal=False)
            x = x + block.ffn(block.ffn_norm(x))
        self.position += 1
        return (model.output_norm(x) @ model.token_embd.weight.T)[:, 0]


def draw_stories(model: TinyLlama, vocabulary: Vocabulary, count: int, temperature: float, seed: int) -> list[str]:
    """Draw `count` stories from nothing but the mark of a story's beginning, each until it ends or fills n_ctx."""
    random = torch.Generator().manual_seed(seed)
    stepper = Stepper(model, count)
    drawn = torch.full((count, model.shape.n_ctx), vocabulary.eos)
    drawn[:, 0] = vocabulary.bos
    running = torch.ones(count, dtype=torch.bool)
    for position in range(1, model.shape.n_ctx):
        shares = torch.softmax(stepper.step(drawn[:, position - 1]) / temperature, dim=-1)
        chosen = torch.multinomial(shares, 1, generator=random)[:, 0]
        drawn[:, position] = torch.where(running, chosen, vocabulary.eos)
        running &= chosen != vocabulary.eos
        if not running.any():
            break
    return [vocabulary.decode(row.tolist()) for row in drawn]
