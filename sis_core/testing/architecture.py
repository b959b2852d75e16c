"""`check_architecture`: a model family on one small model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve

from sis_core.architecture import Architecture, ModelConfig
from sis_core.arrays import F32
from sis_core.backend import BackendOptions, Forward
from sis_core.backends.bind import bind
from sis_core.block import KV, Network
from sis_core.errors import ModelError
from sis_core.loading.network import build_network
from sis_core.metadata import HARMLESS
from sis_core.quant import Weight
from sis_core.step import Batch, Run

N_TOKENS = 12
FEATURES: dict[str, Any] = {
    "expert_count": 4,
    "attention.sliding_window": 3,
    "attn_logit_softcapping": 0.5,
    "final_logit_softcapping": 0.5,
    "logit_scale": 0.5,
    "residual_scale": 0.5,
    "embedding_scale": 0.5,
    "attention.scale": 0.01,
    "attention.clamp_kqv": 0.01,
    "attention.max_alibi_bias": 8.0,
    "attention.causal": False,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
}
"""Keys that change what a model computes. A family may implement them or refuse them, not ignore them."""


def check_architecture(
    architecture: Architecture[Any],
    values: Mapping[str, Any],
    weights: Mapping[str, Weight],
    *,
    set_aside: Sequence[str] = (),
    tolerance: float = 1e-4,
) -> None:
    """Hold a family to what the framework promises of every family, on one small model.

    Every tensor and every key must matter; what is unknown, missing or of a wrong type or shape must be refused by
    name; the network must run on the reference, and give the same logits however the text is cut, forked or batched.

    Args:
        values: metadata of the model as a GGUF file has them. A vocabulary is not needed.
        weights: its tensors, random and not all alike, under GGUF's names; a layer or two of a few dozen values.
        set_aside: keys, of the model or of `FEATURES`, that this family may read and not use, for a reason that its
            author knows.
        tolerance: the largest allowed ``max|a - b| / max|b|`` between two ways to the same logits.

    Raises:
        AssertionError: naming the family, the key or tensor, and what was expected.
    """
    name = values.get("general.architecture")
    assert name in architecture.names, f"general.architecture is {name!r}, which is not among {architecture.names}"
    case = _Case(architecture, dict(values), dict(weights), str(name), tolerance)
    case.sizes()
    case.text()
    case.tensors()
    case.keys(set_aside)


class _Case:
    """One family with one model."""

    def __init__(
        self,
        architecture: Architecture[Any],
        values: dict[str, Any],
        weights: dict[str, Weight],
        name: str,
        tolerance: float,
    ) -> None:
        self.architecture, self.values, self.weights = architecture, values, weights
        self.name, self.tolerance = name, tolerance
        try:
            self.config, self.network = self._build(values, weights)
        except ModelError as error:
            raise AssertionError(f"{name}: the model is refused: {error}") from error
        self.ids: list[int] = np.random.default_rng(3).integers(0, self.config.n_vocab, N_TOKENS).tolist()
        self.logits = self._logits(self.network)

    def sizes(self) -> None:
        """The config agrees with itself, with the file and with the network."""
        config, network = self.config, self.network
        table = self.weights["token_embd.weight"]
        for what, found, wanted in (
            ("n_vocab", config.n_vocab, table.n_rows),
            ("n_embd", config.n_embd, table.n_cols),
            ("architecture", config.architecture, self.name),
            ("the network's n_layer", network.n_layer, config.n_layer),
            ("the network's n_vocab", network.n_vocab, config.n_vocab),
            ("the length of n_head", len(config.n_head), config.n_layer),
            ("the length of n_head_kv", len(config.n_head_kv), config.n_layer),
            ("the length of n_ff", len(config.n_ff), config.n_layer),
        ):
            assert found == wanted, f"{self.name}: {what} is {found}, not {wanted}"
        for i, block in enumerate(network.blocks):
            if isinstance(block.state, KV):
                heads = block.state.n_head_kv
                assert heads == config.n_head_kv[i], f"{self.name}: layer {i} keeps {heads} heads of n_head_kv"

    def text(self) -> None:
        """Finite logits that depend on earlier tokens and their order only, however the text is fed."""
        assert self.logits.shape == (N_TOKENS, self.config.n_vocab), f"{self.name}: logits of {self.logits.shape}"
        assert np.isfinite(self.logits).all(), f"{self.name}: logits that are not finite"
        forward, ids = self._bind(self.network), self.ids
        cache = forward.new_cache("f32", 8 * N_TOKENS)
        other = [(token + 1) % self.config.n_vocab for token in ids]
        rows = [
            forward.step(Batch([other[i], token], (Run(1, i, 1), Run(0, i, 1)), [1]), cache).values[0]
            for i, token in enumerate(ids)
        ]
        self._same(np.array(rows), self.logits, "token by token, beside another text")
        at = cache.reach(0, 5)
        cache.fork(0, 2, at)
        ends = Batch.of(ids[at:5] + other[5:8], position=at, sequence=2, outputs=range(5 - at, 8 - at))
        branch = forward.step(ends, cache).values
        wanted = self._logits(self.network, ids[:5] + other[5:8])[5:]
        self._same(branch, wanted, "another end after a fork at token 5")
        at = cache.reach(0, 7)
        cache.truncate(0, at)
        again = forward.step(Batch.of(ids[at:], position=at, outputs=range(7 - at, N_TOKENS - at)), cache).values
        self._same(again, self.logits[7:], "the end again after truncating to token 7")
        changed = self._logits(self.network, [*ids[:-1], other[-1]])
        self._same(changed[:-1], self.logits[:-1], "logits before a changed last token")
        first = evolve(self.network, blocks=self.network.blocks[:1])  # more layers would know the order from their mask
        here, there = self._logits(first)[-1:], self._logits(first, [*ids[:-3], ids[-2], ids[-3], ids[-1]])[-1:]
        assert self._error(here, there) > self.tolerance or ids[-2] == ids[-3], (
            f"{self.name}: two tokens may change places without a change: positions are not used"
        )

    def tensors(self) -> None:
        """Each tensor changes the logits, is checked for its shape and, if needed, missed by name."""
        for tensor, weight in self.weights.items():
            values = weight.dequantize()
            noise = np.random.default_rng(5).standard_normal(values.shape).astype(np.float32)
            louder = Weight.from_array(tensor, values + np.abs(values).mean() * noise)
            try:
                changed = self._logits(self._build(self.values, {**self.weights, tensor: louder})[1])
            except ModelError:
                continue  # a family may check values: rope factors above 0
            assert not np.array_equal(changed, self.logits), f"{self.name}: tensor {tensor} changes nothing"
            wider = Weight.from_array(tensor, np.concatenate([values, values[..., :1]], -1))
            self._refuses({}, {tensor: wider}, tensor, f"tensor {tensor} with one column more")
            self._misses(tensor)
        extra = "blk.0.check_architecture.weight"
        self._refuses({}, {extra: Weight.from_array(extra, np.ones(4, np.float32))}, extra, "a tensor nobody knows")

    def keys(self, set_aside: Sequence[str]) -> None:
        """Each key has a type, and each feature is implemented or refused."""
        prefix = f"{self.name}."
        for key, value in self.values.items():
            if key.startswith(prefix) and key.removeprefix(prefix) not in (*HARMLESS, *set_aside):
                wrong = 7 if isinstance(value, str) else "check_architecture"
                self._refuses({key: wrong}, {}, key, f"the key {key} as {wrong!r}")
        self._refuses({f"{prefix}check_architecture": 1}, {}, "check_architecture", "a key nobody knows")
        for feature, value in FEATURES.items():
            key = prefix + feature
            if feature in set_aside or key in self.values:
                continue
            if feature == "rope.scaling.factor" and self.values.get(prefix + "rope.scaling.type") == "none":
                continue  # a factor of what the file says is off
            more = {prefix + "rope.scaling.factor": 4.0} if feature == "rope.scaling.type" else {}
            try:
                network = self._build({**self.values, key: value, **more}, self.weights)[1]
            except ModelError:
                continue
            assert not np.array_equal(self._logits(network), self.logits), (
                f"{self.name}: the key {key} = {value!r} is accepted and changes nothing: implement it or leave it "
                "unread, so that the file is refused"
            )

    def _build(self, values: Mapping[str, Any], weights: Mapping[str, Weight]) -> tuple[ModelConfig, Network]:
        config, network, _ = build_network(self.architecture, values, weights, name=self.name, where="model")
        return config, network

    def _bind(self, network: Network) -> Forward:
        return bind(network, [], BackendOptions(kv_type="f32"))

    def _logits(self, network: Network, ids: Sequence[int] | None = None) -> F32:
        ids, forward = self.ids if ids is None else ids, self._bind(network)
        return forward.step(Batch.of(ids, outputs=range(len(ids))), forward.new_cache("f32", N_TOKENS)).values

    def _refusal(self, values: Mapping[str, Any], weights: Mapping[str, Weight], what: str) -> str | None:
        """The message with which the family refuses this file, or None when it accepts it."""
        try:
            self._build(values, weights)
        except ModelError as error:
            return str(error)
        except Exception as error:
            raise AssertionError(f"{self.name}: {what} ends in {type(error).__name__}: {error}") from error
        return None

    def _refuses(self, values: Mapping[str, Any], weights: Mapping[str, Weight], names: str, what: str) -> None:
        message = self._refusal({**self.values, **values}, {**self.weights, **weights}, what)
        assert message is not None, f"{self.name}: {what} is accepted"
        assert names in message, f"{self.name}: {what} is refused without naming {names}: {message}"

    def _misses(self, tensor: str) -> None:
        """Without a tensor the file is another model (a tied head, no biases) or is refused by the tensor's name."""
        rest = {name: weight for name, weight in self.weights.items() if name != tensor}
        message = self._refusal(self.values, rest, f"without tensor {tensor} it")
        stem = tensor.rpartition(".")[0]
        assert message is None or stem in message, f"{self.name}: tensor {tensor} is missed without its name: {message}"

    def _same(self, found: F32, wanted: F32, what: str) -> None:
        error = self._error(found, wanted)
        assert error <= self.tolerance, f"{self.name}: {what}: logits differ by {error:.1e} of the largest"

    def _error(self, found: F32, wanted: F32) -> float:
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())
