"""What the first layer reads: the rows of tokens and, in some families, of positions."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.block import Network
from sis_core.errors import BackendError
from sis_core.step import Batch


class BoundEmbedding:
    """A network's `Embedding` with its norm bound."""

    def __init__(self, network: Network) -> None:
        self.record, self.n_vocab = network.embedding, network.n_vocab
        self.norm = BoundNorm(self.record.norm) if self.record.norm else None
        self._n_positions = self.record.positions.n_rows if self.record.positions else None

    def check(self, batch: Batch) -> None:
        """BackendError for a token or a position without a row."""
        batch.check_tokens(self.n_vocab)
        if self._n_positions is None:
            return
        for _, start, n in batch.runs:
            if start + n > self._n_positions:
                self._refuse_positions(batch)

    def _refuse_positions(self, batch: Batch) -> None:
        assert self.record.positions is not None
        most, n = max(run.start + run.n for run in batch.runs) - 1, self._n_positions
        raise BackendError(f"position {most} is past the {n} positions of {self.record.positions.name}", where="step")

    def __call__(self, batch: Batch) -> F32:
        """``(n, n_embd)`` of the tokens of a batch that `check` passed."""
        assert batch.tokens is not None
        x = self.record.weight.take(batch.tokens)
        if not np.isfinite(x).all():
            self.record.weight.check_numbers(batch.tokens)
        if self.record.scale != 1.0:
            x = x * np.float32(self.record.scale)
        if self.record.positions is not None:
            x = x + self.record.positions.take(batch.positions)
        return x if self.norm is None else self.norm(x)
