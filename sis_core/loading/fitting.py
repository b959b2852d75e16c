"""What of a model fits into memory: whether its weights are packed, and how long its context can be.

Packed weights are a copy in anonymous memory; weights read in place are pages of the file, which the system may drop
and read again. So the rule is: pack and decode at load when all of it fits; else read in place; and if even that does
not fit beside what must be in memory, go on with a warning, since it is slow and not wrong.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence

from attrs import evolve, frozen

from sis_core.architecture import ModelConfig
from sis_core.backend import Backend, BackendOptions
from sis_core.block import STEP_ROWS, Network, find
from sis_core.cache.kv_types import value_bytes
from sis_core.cache.tables import text_nbytes
from sis_core.errors import BackendError, blaming
from sis_core.experts import Experts
from sis_core.machine.memory import MIB, MemoryPlan

log = logging.getLogger(__name__)

LOGITS = 16  # rows of logits that are counted, as of so many texts at once; those of greedy texts stay allocated
MIN_CTX = 256  # below this a context is not worth having: say what is missing instead


@frozen
class Fit:
    """What was chosen for a model, and why.

    Attributes:
        n_ctx: tokens of context.
        options: the user's, with what they left open decided.
        plan: the bytes that this takes with a full cache.
        limit: the bytes there are.
        refused: what would have been chosen with more memory, or None.
        by_choice: the user said whether to pack.
    """

    n_ctx: int
    options: BackendOptions
    plan: MemoryPlan
    limit: int
    refused: MemoryPlan | None
    by_choice: bool

    @property
    def layout(self) -> str:
        """One clause on how the weights are kept, and why."""
        free = f"{self.limit / MIB:,.0f} MiB are free"
        if not self.options.decode:
            kept = "weights that only Python decodes are decoded in every step, which is slow"
        elif not self.plan.packed and self.options.pack:
            return "weights are read in place: the backend packs none"
        else:
            when = " while the first tokens come" if self.options.gradual else ""
            kept = f"weights are packed{when}" if self.options.pack else "weights are read in place"
        if self.refused is not None:
            return f"{kept}: otherwise the model needs {self.refused}, but {free}"
        if self.by_choice:
            return f"{kept}: {'--pack' if self.options.pack else '--no-pack'} says so"
        return f"{kept}: {self.plan.total / MIB:,.0f} MiB in all, and {free}"

    def lines(self) -> list[str]:
        """What the model takes, and how its weights are kept."""
        return [f"{self.plan}, of {self.limit / MIB:,.0f} MiB that were free", self.layout]

    def tell(self, where: str) -> None:
        """Log what was chosen; a warning where memory forced it."""
        log.log(logging.WARNING if self.refused else logging.INFO, "%s: %s", where, self.layout)
        if self.plan.total > self.limit:
            log.warning(
                "%s: needs %s, but %d MiB are free: steps will wait for the disk", where, self.plan, self.limit // MIB
            )


def fit(
    config: ModelConfig,
    network: Network,
    wanted: int | None,
    options: BackendOptions,
    backends: Sequence[Backend],
    limit: int,
    where: str,
    layers: range,
) -> Fit:
    """Decide what the user left open: exactly ``wanted`` tokens, or the longest context up to the trained length.

    What counts is what binding ``layers`` takes.

    Raises:
        MemoryLimitError: what cannot be dropped does not fit; the message has the sum.
    """
    states = [block.state for block in network.blocks[layers.start : layers.stop] if block.state]
    size = value_bytes(options.kv_type)
    working = working_nbytes(config, network)

    def cache(n_tokens: int) -> int:
        return int(sum(text_nbytes(state, size, n_tokens) for state in states))

    def plan(choice: BackendOptions) -> MemoryPlan:
        packed, in_place = max((_weights(backend, network, layers, choice) for backend in backends), default=(0, 0))
        return MemoryPlan(in_place, packed, cache(least), working)

    least = min(MIN_CTX, config.n_ctx) if wanted is None else wanted
    gradual = options.pack is None if options.gradual is None else options.gradual
    choices = [
        evolve(options, pack=pack, gradual=gradual, decode=decode)
        for decode in ((True, False) if options.decode is None else (options.decode,))
        for pack in ((True, False) if options.pack is None else (options.pack,))
    ]
    plans: list[MemoryPlan] = []
    for choice in choices:
        plans.append(plan(choice))
        if plans[-1].total <= limit:
            at = len(plans) - 1
            break
    else:  # pages of the file need not all be in memory at once
        fitting = [i for i, made in enumerate(plans) if made.anonymous <= limit]
        if not fitting:
            plans[-1].check(limit, where)
        at = fitting[0]
    n_ctx = least
    if wanted is None:
        room = limit - evolve(plans[at], cache=0).total
        n_ctx = max(least, bisect_right(range(config.n_ctx + 1), room, key=cache) - 1)
    fitted = evolve(plans[at], cache=cache(n_ctx))
    return Fit(n_ctx, choices[at], fitted, limit, plans[0] if at else None, options.pack is not None)


def working_nbytes(config: ModelConfig, network: Network) -> int:
    """Bytes that a step of as many rows as `Network.step_rows` works in."""
    experts = max((op.n_used * op.n_working for op in find(network.blocks, Experts)), default=0)
    rows = min(network.step_rows, max(config.n_ctx, STEP_ROWS))
    logits = LOGITS * config.n_vocab
    return 4 * (rows * (4 * config.n_embd + max(2 * max(config.n_ff), experts)) + logits) + 8 * MIB


def _weights(backend: Backend, network: Network, layers: range, options: BackendOptions) -> tuple[int, int]:
    with blaming(BackendError, f"the backend {backend.name!r}"):
        return backend.memory(network, layers, options), backend.in_place(network, layers, options)
