"""A run that learns to answer: each step has rows of talks beside rows of plain stories."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train_tiny.batches import batches
from train_tiny.chat import encode_talk
from train_tiny.held_out import HeldOut
from train_tiny.model import Shape
from train_tiny.talks import TalkMaker
from train_tiny.text import Stories
from train_tiny.train import Plan, Run
from train_tiny.vocabulary import Vocabulary

Weighted = tuple[np.ndarray, np.ndarray]  # token ids and what each counts in the loss, same shape


def packed_rows(talks: list[Weighted], stories: list[np.ndarray], length: int, rng: np.random.Generator) -> Weighted:
    """Lay whole talks into rows (N, length + 1); the beginning of a plain story fills up each row.

    A row begins with a talk's beginning, as a chat does: no request stands behind the remains of another talk.
    """
    rows: list[list[Weighted]] = []
    room = 0
    for talk in talks:
        size = len(talk[0])
        if size > length + 1:
            continue
        if size > room:
            rows.append([])
            room = length + 1
        rows[-1].append(talk)
        room -= size
    for row in rows:
        while rest := length + 1 - sum(len(ids) for ids, _ in row):
            story = stories[rng.integers(len(stories))][:rest]
            row.append((story, np.ones(len(story), dtype=np.float32)))
    ids = [np.concatenate([ids for ids, _ in row]) for row in rows]
    return np.stack(ids), np.stack([np.concatenate([weights for _, weights in row]) for row in rows])


class TalkRun(Run):
    """A run of which a share of the rows are talks about the training stories."""

    def __init__(
        self,
        stories: Stories,
        vocabulary: Vocabulary,
        shape: Shape,
        plan: Plan,
        folder: Path,
        held_out: list[HeldOut],
        share: float,
    ) -> None:
        super().__init__(stories, vocabulary, shape, plan, folder)
        self.vocabulary = vocabulary
        self.maker = TalkMaker(stories.train, frozenset(item.nouns for item in held_out))
        self.talk_rows = max(1, min(plan.rows - 1, round(share * plan.rows)))

    def talks(self, length: int) -> Iterator[Weighted]:
        """Endless rows of talks, each epoch made anew."""
        for epoch in count():
            made = self.maker.epoch(self.plan.seed * 1000 + epoch)
            encoded = [encode_talk(talk, self.vocabulary) for talk in made]
            rng = np.random.default_rng((self.plan.seed, epoch))
            ids, weights = packed_rows([talk for talk in encoded if talk], self.train_ids, length, rng)
            yield from zip(ids, weights, strict=True)

    def batches(self, length: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches: token ids (rows, length), those that follow, and what each of those counts."""
        talks = self.talks(length)
        plain = batches(self.train_ids, length, self.plan.rows - self.talk_rows, self.plan.seed, self.step)
        for _ in range(self.step * self.talk_rows):
            next(talks)
        for tokens, targets in plain:
            rows = [next(talks) for _ in range(self.talk_rows)]
            ids = torch.from_numpy(np.stack([ids for ids, _ in rows]).astype(np.int64))
            counts = torch.from_numpy(np.stack([weights for _, weights in rows]))
            yield (
                torch.cat([ids[:, :-1], tokens]),
                torch.cat([ids[:, 1:], targets]),
                torch.cat([counts[:, 1:], torch.ones(targets.shape)]),
            )
