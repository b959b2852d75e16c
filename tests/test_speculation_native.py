"""Whole texts on this machine's kernels, by a network that needs no file: guesses change no bit. Emulated, too."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import evolve
from guessing import CHAINS, Knows, run
from test_forced import Words

from sis_core.backend import BackendOptions, Cache
from sis_core.backends.bind import bind
from sis_core.block import Network
from sis_core.loading.model import Model
from sis_core.registry import Registry
from sis_core.step import Batch, Output
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.networks import N_VOCAB, VARIANTS, random_network
from sis_core.texts.chain_text import make_chain
from sis_core.texts.drafting import Drafting
from sis_core.texts.request import Request
from sis_core.texts.session import Session
from sis_core.texts.silent import SilentTokenizer

KIND = kind_of_this_machine()
REGISTRY = Registry.load()
pytestmark = pytest.mark.skipif(KIND is None, reason="no native backend for this machine")
FORMATS = ("Q4_0", "Q8_0")
LIMITS: list[dict[str, Any]] = [
    {"max_tokens": 24},
    {"max_tokens": 9, "logprobs": 2},
    {"max_tokens": None, "context": "error"},
    {"max_tokens": 60, "context": "shift", "prompt_logprobs": 1},
]
EVERY = int(os.environ.get("SIS_TEST_EVERY", "31"))  # of the combinations one runs: emulation is slow; 1 for all 576


class Bare:
    """What texts ask of a model, over a network."""

    degraded = 0
    adapters: frozenset[str] = frozenset()

    def __init__(self, network: Network) -> None:
        assert KIND is not None
        self.config = SimpleNamespace(n_ctx=network.n_ctx, n_vocab=network.n_vocab)
        self.network, self.tokenizer = network, SilentTokenizer(network.n_vocab)
        self.forward = bind(network, [KIND()], BackendOptions(n_threads=1, batch_invariant=True))
        assert all(KIND.name in grain for grain in self.forward.grains)

    def new_cache(self, max_tokens: int) -> Cache:
        return self.forward.new_cache("f16", max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return self.forward.step(batch, cache)

    def session(self, **room: Any) -> Session:
        return Session(cast(Model, self), **room)


def combinations() -> Iterator[list[Request]]:
    """Batches of one to three texts: every so manyth of all combinations of chain, seed, limit, grammar."""
    choices = itertools.product(CHAINS, range(6), LIMITS, (False, True), (1, 3))
    for chain, seed, limits, forces, n_texts in itertools.islice(choices, 0, None, EVERY):
        samplers = make_chain(REGISTRY, samplers=chain)
        if forces:
            samplers = [Words((bytes(range(7)), b"\x21\x22", b"\x30")), *samplers]
        yield [
            Request([(7 * at + seed + i) % N_VOCAB for at in range(5)], samplers, seed=seed + 10 * i, **limits)
            for i in range(n_texts)
        ]


@pytest.mark.full
@pytest.mark.parametrize("format", FORMATS)
def test_whole_texts_with_and_without_guesses(format: str) -> None:
    variant = evolve(VARIANTS[0], format=REGISTRY.get("quant_formats", format))
    model = Bare(random_network(variant, n_ctx=64))
    n_batches = n_ahead = n_wasted = n_saved = 0
    for requests in combinations():
        wanted, plain, ids = run(model, requests, n_ctx=48, max_tokens=256)
        drafting = Drafting((Knows(ids, wrong_every=4, n_vocab=N_VOCAB),))
        found, ahead, _ = run(model, requests, drafting, n_ctx=48, max_tokens=256)
        assert found == wanted
        n_saved += plain.steps - ahead.steps  # a wrong guess may take the room of what is forced, and cost one
        n_batches += 1
        if not any(isinstance(sampler, Words) for sampler in requests[0].samplers):  # nothing but guesses
            n_ahead, n_wasted = n_ahead + ahead.rows_ahead, n_wasted + ahead.rows_wasted
    assert n_batches > 15
    assert n_saved > 5 * n_batches
    assert 0.3 * n_ahead <= n_wasted <= 0.7 * n_ahead
