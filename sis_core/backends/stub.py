"""A backend without arithmetic: deterministic logits for testing everything around a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from attrs import define, field, frozen

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, Cache, Forward
from sis_core.block import Network
from sis_core.cache.pages import PageTable, pages_for
from sis_core.errors import BackendError
from sis_core.step import Batch, Output


@define(eq=False)
class StubCache:
    """Real page tables, so that positions, forks and limits behave as in any backend; and each sequence's tokens."""

    table: PageTable
    owner: object
    tokens: dict[int, list[int]] = field(factory=dict)

    @property
    def nbytes(self) -> int:
        return 4 * self.table.n_used * self.table.page_size

    @property
    def n_free(self) -> int:
        return self.table.n_free

    def length(self, sequence: int) -> int:
        return self.table.length(sequence)

    def reach(self, sequence: int, n: int) -> int:
        return self.table.reach(sequence, n)

    def truncate(self, sequence: int, n: int) -> None:
        self.table.truncate(sequence, n)
        self.tokens[sequence] = self.tokens.get(sequence, [])[:n]

    def fork(self, source: int, target: int, n: int) -> None:
        self.table.fork(source, target, n)
        self.tokens[target] = self.tokens.get(source, [])[:n]

    def mark(self, sequence: int) -> None:
        """Everything is kept anyway."""

    def evict(self, sequence: int, pages: Iterable[int], windowed: bool = False) -> None:
        self.table.evict(sequence, pages)

    def whole(self, sequence: int) -> int:
        return self.table.whole(sequence)

    def n_evicted(self, sequence: int) -> int:
        return self.table.n_evicted(sequence) * self.table.page_size

    def drop(self, sequence: int) -> None:
        self.table.drop(sequence)
        self.tokens.pop(sequence, None)

    def save(self, sequence: int) -> Iterator[bytes]:
        yield b"sis-stub\n"
        yield np.asarray(self.tokens.get(sequence, []), "<i4").tobytes()

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        saved = b"".join(data)
        if not saved.startswith(b"sis-stub\n") or (len(saved) - 9) % 4:
            raise BackendError("these bytes are not a saved sequence of the stub backend", where="cache")
        tokens = np.frombuffer(saved[9:], "<i4").tolist()
        self.table.replace(sequence, len(tokens))
        self.tokens[sequence] = tokens


@frozen(eq=False)
class StubForward:
    """Logits that are a function of the sequence's last two tokens and its length."""

    network: Network
    layers: range
    token: object = field(factory=object)

    @property
    def grains(self) -> tuple[str, ...]:
        return ("stub",) * len(self.layers)

    @property
    def batch_invariant(self) -> bool:
        return True

    def new_cache(self, kv_type: str, max_tokens: int) -> StubCache:
        return StubCache(PageTable(pages_for(max_tokens)), self.token)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return 4 * max_tokens

    def step(self, batch: Batch, cache: Cache) -> Output:
        if not isinstance(cache, StubCache) or cache.owner is not self.token:
            raise BackendError("this cache was made by another model or backend", where="step")
        if batch.adapters:
            raise BackendError("the stub backend knows no adapters", where="step")
        if batch.tokens is None:
            raise BackendError("the stub backend takes tokens, not hidden states", where="step")
        batch.check_tokens(self.network.n_vocab)
        with cache.table.reserve(batch):
            pass
        wanted = set(batch.outputs.tolist())
        results: dict[int, F32] = {}
        tokens, row = batch.tokens.tolist(), 0
        for sequence, _, n in batch.runs:
            seen = cache.tokens.setdefault(sequence, [])
            for token in tokens[row : row + n]:
                seen.append(token)
                if row in wanted:
                    results[row] = self._values(seen, batch.want)
                row += 1
        width = self.network.n_vocab if batch.want == "logits" else self.network.n_embd
        rows = [results[row] for row in batch.outputs.tolist()]
        return Output(np.stack(rows) if rows else np.empty((0, width), np.float32))

    def _values(self, seen: list[int], want: str) -> F32:
        n = self.network.n_vocab if want == "logits" else self.network.n_embd
        generator = np.random.Generator(
            np.random.Philox(key=len(seen), counter=[seen[-1], seen[-2] if len(seen) > 1 else 0, 0, 0])
        )
        return generator.standard_normal(n, np.float32) * np.float32(3)


class StubBackend(Backend):
    """Chosen only by its name."""

    name = "stub"

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
        return StubForward(network, layers)
