"""The model: a small LLaMA (Touvron et al. 2023), exactly as GGUF readers run `general.architecture = llama`.

Letters used for tensor shapes: B rows in a batch, T tokens in a row, C = n_embd channels, H heads, D = C / H channels
of one head.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train_tiny.head_loss import head_loss


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. Row lengths (n_embd, n_ff) that 256 divides can be stored as any GGUF type."""

    n_vocab: int
    n_embd: int = 256
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 768
    n_ctx: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.n_embd // self.n_head


class RMSNorm(nn.Module):
    """Divide each channel vector by its root mean square, then scale (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same shape and type; the mean is taken in float32."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


def rope_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (n_ctx, D / 2) (Su et al. 2021)."""
    half = torch.arange(shape.head_dim // 2, dtype=torch.float64)
    speed = shape.rope_base ** (-2.0 * half / shape.head_dim)
    angle = torch.arange(shape.n_ctx, dtype=torch.float64)[:, None] * speed
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs (0, 1), (2, 3), ... of x (B, T, H, D) by each position's angles.

    Neighbouring pairs are what GGUF files of the llama architecture expect, so that no rows move at export.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention in which several query heads share a key/value head (Ainslie et al. 2023)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q = nn.Linear(shape.n_embd, shape.n_head * shape.head_dim, bias=False)
        self.k = nn.Linear(shape.n_embd, shape.n_head_kv * shape.head_dim, bias=False)
        self.v = nn.Linear(shape.n_embd, shape.n_head_kv * shape.head_dim, bias=False)
        self.output = nn.Linear(shape.n_head * shape.head_dim, shape.n_embd, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Channels (B, T, C) to queries (B, H, T, D), and keys and values (B, H_kv, T, D)."""
        s = self.shape
        q = rotate(self.q(x).unflatten(-1, (s.n_head, s.head_dim)), cos, sin)
        k = rotate(self.k(x).unflatten(-1, (s.n_head_kv, s.head_dim)), cos, sin)
        v = self.v(x).unflatten(-1, (s.n_head_kv, s.head_dim))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """Queries, keys and values as `project` gives them to channels (B, T, C)."""
        s, group = self.shape, self.shape.n_head // self.shape.n_head_kv
        if q.shape[2] == 1:  # one token: a group's heads as rows, so that the past need not be copied for each head
            mixed = F.scaled_dot_product_attention(q.reshape(-1, s.n_head_kv, group, s.head_dim), k, v)
            return self.output(mixed.reshape(-1, 1, s.n_head * s.head_dim))
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.output(mixed.transpose(1, 2).flatten(-2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.mix(*self.project(x, cos, sin), causal=True)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each normalised first and added to the stream."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.attn = Attention(shape)
        self.ffn_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.ffn = FeedForward(shape)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + F.dropout(self.attn(self.attn_norm(x), cos, sin), self.dropout, self.training)
        return x + F.dropout(self.ffn(self.ffn_norm(x)), self.dropout, self.training)


class TinyLlama(nn.Module):
    """The whole model. The output head is the token embedding, used a second time (tied)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layer))
        self.output_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        cos, sin = rope_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.start()

    def start(self) -> None:
        """Set the first weights: small noise, and zero where a layer writes, so that each layer begins as nothing."""
        nn.init.normal_(self.token_embd.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("attn.output.weight", "ffn.down.weight")):
                nn.init.zeros_(weight)
            elif "blocks" in name and weight.ndim == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def with_context(self, n_ctx: int) -> "TinyLlama":
        """A copy that can see n_ctx tokens at once."""
        copy = TinyLlama(replace(self.shape, n_ctx=n_ctx))
        copy.load_state_dict(self.state_dict())
        return copy

    def with_vocabulary(self, size: int, like: int) -> "TinyLlama":
        """A copy whose vocabulary is longer; each new token's channels begin close to those of token `like`."""
        copy, old = TinyLlama(replace(self.shape, n_vocab=size)), self.token_embd.weight
        with torch.no_grad():
            noise = 0.02 * torch.randn(size - len(old), self.shape.n_embd)
            copy.load_state_dict(self.state_dict() | {"token_embd.weight": torch.cat([old, old[like] + noise])})
        return copy

    def hidden(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to the last normalised channels (B, T, C)."""
        x = self.token_embd(tokens)
        if torch.is_autocast_enabled(tokens.device.type):
            x = x.bfloat16()  # else the whole residual stream would stay float32 and cost twice the memory traffic
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, n_vocab)."""
        return F.linear(self.hidden(tokens), self.token_embd.weight)

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood in nats per token of targets (B, T) after tokens (B, T), by weights (B, T)."""
        return head_loss(self.hidden(tokens), self.token_embd.weight, targets, weights)
