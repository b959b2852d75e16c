"""Batches: each epoch the stories in a new order, end to end, cut into rows of equal length."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def rows_of(stories: list[np.ndarray], length: int, phase: int = 0) -> np.ndarray:
    """Lay stories (token ids) end to end, drop `phase` tokens, and cut rows of length + 1 that overlap by one token.

    The overlap gives every token one turn as a target. What does not fill the last row is dropped.
    """
    line = np.concatenate(stories)[phase:]
    count = (len(line) - 1) // length
    starts = np.arange(count)[:, None] * length
    return line[starts + np.arange(length + 1)[None, :]]


def epoch_rows(stories: list[np.ndarray], length: int, seed: int, epoch: int) -> np.ndarray:
    """The rows (N, length + 1) of one epoch. Order and phase follow from seed and epoch, so a run can be taken up."""
    rng = np.random.default_rng((seed, epoch))
    shuffled = [stories[i] for i in rng.permutation(len(stories))]
    size = sum(map(len, stories))
    rows = rows_of(shuffled, length, phase=int(rng.integers(0, max(1, min(length, size - length - 1)))))
    return rows[rng.permutation(len(rows))]


def batches(
    stories: list[np.ndarray], length: int, rows: int, seed: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches from number `first` on: token ids (rows, length) and the ids that follow them, same shape."""
    number, epoch = 0, 0
    while True:
        table = epoch_rows(stories, length, seed, epoch)
        rows = min(rows, len(table))
        for start in range(0, len(table) - rows + 1, rows):
            if number >= first:
                batch = torch.from_numpy(table[start : start + rows].astype(np.int64))
                yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
            number += 1
        epoch += 1
