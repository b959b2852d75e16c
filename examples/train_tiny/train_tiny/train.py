"""The training run: by the clock, with checkpoints, so that it ends in time and survives an interruption."""

import csv
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from train_tiny.batches import batches, rows_of
from train_tiny.model import Shape, TinyLlama
from train_tiny.optimise import optimisers, schedule
from train_tiny.text import Stories
from train_tiny.vocabulary import Vocabulary

HELD_OUT_TOKENS = 65536  # that a running training measures; `evaluate` takes all
LOG_FIELDS = ["step", "tokens", "minutes", "rate", "train_nats", "held_out_bits_per_byte"]


@dataclass(frozen=True)
class Plan:
    """How to train. Times are in minutes, `rows` is the number of n_ctx-token rows in one step."""

    minutes: float = 60.0
    max_steps: int | None = None
    rows: int = 16
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    weight_decay: float = 0.1
    dropout: float = 0.0
    clip: float = 1.0
    seed: int = 1
    save_minutes: float = 3.0
    held_out_minutes: float = 8.0
    bf16: bool = True
    compile: bool = True


class Run:
    """One training run, kept in a folder: the model, the optimisers, and how far they have come."""

    def __init__(self, stories: Stories, vocabulary: Vocabulary, shape: Shape, plan: Plan, folder: Path) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.folder = plan, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = TinyLlama(shape, plan.dropout).to(self.device)
        self.optimisers = optimisers(self.model, plan.muon_lr, plan.adam_lr, plan.weight_decay)
        self.step, self.seconds = 0, 0.0
        self.train_ids = [np.array(vocabulary.encode(story), dtype=np.int32) for story in stories.train]
        held_out_ids = [np.array(vocabulary.encode(story), dtype=np.int32) for story in stories.held_out]
        length = min(shape.n_ctx, sum(map(len, held_out_ids)) - 1)
        self.held_out = torch.from_numpy(
            rows_of(held_out_ids, length)[: -(-HELD_OUT_TOKENS // length)].astype(np.int64)
        )
        held_out_bytes = sum(len(story.encode("utf-8")) for story in stories.held_out)
        self.tokens_per_byte = sum(map(len, held_out_ids)) / held_out_bytes

    @property
    def checkpoint(self) -> Path:
        """The file from which an interrupted run goes on."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint. It replaces the old one only when it is complete."""
        state = {
            "shape": dataclasses.asdict(self.model.shape),
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["shape"] != dataclasses.asdict(self.model.shape):
            raise ValueError(f"{self.checkpoint} holds a model of another shape; choose another --work folder")
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def autocast(self) -> torch.autocast:
        """Matrix products in bfloat16 where the plan says so; the weights themselves stay float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bf16)

    @torch.no_grad()
    def held_out_bits(self) -> float:
        """Bits per byte on part of the held-out text: quick, and a little too high, as rows start without context."""
        self.model.eval()
        nats = 0.0
        for rows in self.held_out.split(16):
            with self.autocast():
                ids = rows.to(self.device)
                nats += self.model.loss(ids[:, :-1], ids[:, 1:]).item() * len(rows)
        self.model.train()
        return nats / len(self.held_out) / math.log(2) * self.tokens_per_byte

    def batches(self, length: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches from the next step on, as the arguments of the model's loss."""
        return batches(self.train_ids, length, self.plan.rows, self.plan.seed, self.step)

    def take_step(self, loss_of: Callable[..., Tensor], rate: float, batch: tuple[Tensor, ...]) -> float:
        """One step of all optimisers at a share `rate` of their peak rates; the loss in nats per token."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * rate
        with self.autocast():
            loss = loss_of(*(part.to(self.device) for part in batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        return loss.item()

    def done(self) -> float:
        """The share of the run that is behind us: of its time, or of its steps where they end it first."""
        by_steps = self.step / self.plan.max_steps if self.plan.max_steps else 0.0
        return max(self.seconds / (60 * self.plan.minutes), by_steps)

    def train(self) -> None:
        """Train until the time is over, going on from the checkpoint of an interrupted run."""
        plan, length = self.plan, min(self.model.shape.n_ctx, sum(map(len, self.train_ids)) // 2)
        self.resume()
        if self.done() >= 1.0:
            return
        self.model.train()
        loss_of = torch.compile(self.model.loss) if plan.compile else self.model.loss
        begun: float | None = None  # the first step compiles, which is not training: the clock starts after it
        saved = measured = self.seconds
        recent: list[float] = []
        bar = tqdm(total=1.0, initial=self.done(), bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}")
        for batch in self.batches(length):
            rate = schedule(self.done())
            recent.append(self.take_step(loss_of, rate, batch))
            self.step += 1
            if begun is None:
                begun = time.monotonic() - self.seconds
            self.seconds = time.monotonic() - begun
            bar.n = min(1.0, self.done())
            bar.set_postfix_str(f"step {self.step} loss {np.mean(recent[-20:]):.3f}")
            last = self.done() >= 1.0
            if last or self.seconds - measured > 60 * plan.held_out_minutes or len(recent) == 50:
                due = last or self.seconds - measured > 60 * plan.held_out_minutes
                self.log(rate, float(np.mean(recent)), self.held_out_bits() if due else None, batch[0].numel())
                recent, measured = [], self.seconds if due else measured
            if last or self.seconds - saved > 60 * plan.save_minutes:
                self.save()
                saved = self.seconds
            if last:
                break
        bar.close()

    def log(self, rate: float, nats: float, bits: float | None, tokens_per_step: int) -> None:
        """Add a line to log.csv."""
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(LOG_FIELDS)
            minutes = f"{self.seconds / 60:.2f}"
            held_out = "" if bits is None else f"{bits:.4f}"
            tokens = self.step * tokens_per_step
            writer.writerow([self.step, tokens, minutes, f"{rate:.4f}", f"{nats:.4f}", held_out])
