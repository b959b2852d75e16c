"""The optimisers: Muon for the layers' matrices, AdamW for the embedding and the norms."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move every singular value of matrices (N, rows, columns) close to 1, keeping the singular vectors.

    Newton-Schulz iteration with the quintic coefficients of Keller Jordan's Muon (2024,
    https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal (Keller Jordan 2024), with decoupled weight decay.

    The step of a matrix with more rows than columns is widened by sqrt(rows / columns), so that every matrix changes
    its output by about the same amount.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step with the gradients that backward() left."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            # Matrices of one shape go through the iteration together: few large products instead of many small ones.
            for shape, params in by_shape.items():
                steps = []
                for p in params:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                    steps.append(p.grad.lerp(momentum, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, step in zip(params, orthogonalise(torch.stack(steps)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(step, alpha=-group["lr"] * scale)


def optimisers(model: nn.Module, muon_lr: float, adam_lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """The two optimisers of a TinyLlama; each group keeps its peak rate as `peak_lr` for the schedule."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "token_embd" not in n]
    embedding = [p for n, p in model.named_parameters() if "token_embd" in n]
    norms = [p for p in model.parameters() if p.ndim == 1]
    adam = torch.optim.AdamW(
        [{"params": embedding, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}],
        lr=adam_lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    both: list[torch.optim.Optimizer] = [Muon(matrices, muon_lr, weight_decay=weight_decay), adam]
    for optimiser in both:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return both


def schedule(done: float, warm_up: float = 0.02, decay: float = 0.6) -> float:
    """The share of the peak rate at a share `done` (0 to 1) of the run: up, level, then straight down to nothing."""
    return max(0.0, min(1.0, done / warm_up, (1 - done) / decay))
