"""The loss at the head, a few rows at a time, so that the logits of a whole batch never lie in memory.

Logits of 8,192 tokens over 4,096 are 134 MB, which the usual way writes and reads several times: more work for a
processor than the layers' products. Here the gradient is taken while a part's logits are still in the cache, as in
Liger Kernel's fused linear cross entropy (Hsu et al. 2024, https://arxiv.org/abs/2410.10989).
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

ROWS = 1024


class HeadLoss(torch.autograd.Function):
    """Weighted sum of negative log-likelihoods, in nats, with its gradient computed on the way forward."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Channels (N, C), head (n_vocab, C), ids (N,) and the weight of each (N,), to one number."""
        head = table.to(hidden.dtype)
        learn = any(ctx.needs_input_grad)
        by_hidden = torch.empty_like(hidden)
        by_table = torch.zeros_like(table)
        nats = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), ROWS):
            part = slice(start, start + ROWS)
            x, wanted, weight = hidden[part], targets[part, None], weights[part, None]
            shares = (x @ head.T).float()
            shares -= shares.amax(-1, keepdim=True)
            scores = shares.gather(1, wanted)
            total = shares.exp_().sum(-1, keepdim=True)
            nats += ((total.log() - scores) * weight).sum()
            if learn:
                shares *= weight / total
                slope = shares.scatter_add_(1, wanted, -weight).to(hidden.dtype)
                by_hidden[part] = slope @ head
                by_table += (slope.T @ x).float()
        ctx.save_for_backward(by_hidden, by_table)
        return nats

    @staticmethod
    def backward(ctx: FunctionCtx, slope: Tensor) -> tuple[Tensor | None, ...]:
        """The saved gradients, times the gradient of what was made of the loss."""
        by_hidden, by_table = ctx.saved_tensors
        return by_hidden * slope, by_table * slope, None, None


@torch.compiler.disable
def head_loss(hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood in nats of targets (B, T) after channels (B, T, C) under the head (n_vocab, C).

    With weights (B, T), the weighted mean; tokens of weight 0 cost nothing.
    """
    if weights is None:
        weights = torch.ones(targets.shape, device=targets.device)
    counted = weights > 0
    weight = weights[counted]
    return HeadLoss.apply(hidden[counted], table, targets[counted], weight / weight.sum())
