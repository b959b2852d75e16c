"""The kit for family authors names what is wrong with wrong families. (Right ones: `family_suite`.)"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_model
from attrs import evolve
from family_suite import content, installed
from shapes import SHAPES
from sis_llama.llama import Llama

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Attention, Block, Dense, Embedding, Head, Norm, Residual
from sis_core.errors import ModelError
from sis_core.expert_parts import ExpertsConfig
from sis_core.loading.network import build_network
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.tensors import Tensors
from sis_core.testing import check_architecture

Content = tuple[dict[str, Any], dict[str, Weight]]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Content]:
    """Metadata and weights of a shape with as few layers as show all of it."""
    folder = tmp_path_factory.mktemp("small")

    def read(shape: str) -> Content:
        path = folder / f"{shape}.gguf"
        if not path.exists():
            random_model.write_model(SHAPES[shape].scaled_down().with_layers(2), path, seed=2)
        return content(path)

    return read


class IgnoresKeys(Llama):
    def config(self, metadata: Metadata, n_vocab: int) -> Any:
        metadata.ignore(*(key.removeprefix("llama.") for key in metadata.values))
        return super().config(metadata, n_vocab)


class IgnoresSoftcap(Llama):
    def config(self, metadata: Metadata, n_vocab: int) -> Any:
        metadata.ignore("attn_logit_softcapping")
        return super().config(metadata, n_vocab)


class IgnoresTensors(Llama):
    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        tensors.ignore(*tensors.unread())
        return super().head(config, tensors)


class DropsTheOutputNorm(Llama):
    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        return evolve(super().head(config, tensors), norm=None)


class TakesNoShape(Llama):
    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        found = tensors.get("output.weight")
        if found is None:
            return super().head(config, tensors)
        tensors.ignore("output.weight")
        return Head(tensors.norm("rms", "output_norm", config.n_embd, config.norm_eps), Dense(found))


class ForgetsPositions(Llama):
    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        return attention_of(super().block(config, i, tensors), rope=None)


class WrongVocabulary(Llama):
    def config(self, metadata: Metadata, n_vocab: int) -> Any:
        return evolve(super().config(metadata, n_vocab), n_vocab=n_vocab - 1)

    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding:
        weight = tensors.matrix("token_embd.weight", config.n_vocab + 1, config.n_embd)
        return Embedding(weight.rows(0, config.n_vocab))

    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        head = super().head(evolve(config, n_vocab=config.n_vocab + 1), tensors)
        return evolve(head, dense=Dense(head.dense.weight.rows(0, config.n_vocab)))


class ReadsRawMetadata(Llama):
    def config(self, metadata: Metadata, n_vocab: int) -> Any:
        _ = metadata.values["llama.embedding_length"] + 1
        return super().config(metadata, n_vocab)


class RepeatsALayer(Llama):
    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        super().block(config, i, tensors)
        return super().block(config, 0, tensors)


@pytest.mark.parametrize(
    ("family", "says"),
    [
        (IgnoresKeys, r"a key nobody knows is accepted"),
        (IgnoresSoftcap, r"the key llama\.attn_logit_softcapping = 0\.5 is accepted and changes nothing"),
        (IgnoresTensors, r"a tensor nobody knows is accepted"),
        (DropsTheOutputNorm, r"tensor output_norm\.weight changes nothing"),
        (TakesNoShape, r"tensor output\.weight with one column more is accepted"),
        (ForgetsPositions, r"may change places without a change: positions are not used"),
        (WrongVocabulary, r"n_vocab is 383, not 384"),
        (ReadsRawMetadata, r"the key llama\.embedding_length as 'check_architecture' ends in TypeError"),
        (RepeatsALayer, r"tensor blk\.1\.attn_norm\.weight changes nothing"),
    ],
)
def test_a_wrong_family_is_found(family: type[Llama], says: str, small: Callable[[str], Content]) -> None:
    with pytest.raises(AssertionError, match=says):
        check_architecture(family(), *small("tinyllama-1.1b"))


def attention_of(block: Block, **fields: Any) -> Block:
    """The block with other fields of its attention."""
    first = block.ops[0]
    assert isinstance(first, Residual)
    norm, attention = first.branches[0]
    assert isinstance(attention, Attention)
    return evolve(block, ops=(Residual(((norm, evolve(attention, **fields)),)), *block.ops[1:]))


class NormsAsManyAsItLikes(Llama):
    def __init__(self, what: str, n: int) -> None:
        self.what, self.n = what, n

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        norm = Norm("rms", 1e-5, Weight.from_array("own", np.ones(self.n, np.float32)))
        return attention_of(super().block(config, i, tensors), **{self.what: norm})


class TakesHalfTheHidden(Llama):
    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        block = super().block(config, i, tensors)
        half = Dense(Weight.from_array("half", np.ones((config.n_embd, config.n_embd // 2), np.float32)))
        return evolve(block, ops=(*block.ops, half))


def test_widths_that_do_not_fit_are_found_at_load(small: Callable[[str], Content]) -> None:
    values, weights = small("tinyllama-1.1b")
    n_embd, n_head = values["llama.embedding_length"], values["llama.attention.head_count"]
    head_dim, n_head_kv = n_embd // n_head, values["llama.attention.head_count_kv"]
    for family in (NormsAsManyAsItLikes("q_norm", n_embd), NormsAsManyAsItLikes("k_norm", head_dim)):
        build_network(family, values, weights, name="llama")
    assert n_head_kv < n_head
    for family, says in (
        (NormsAsManyAsItLikes("q_norm", n_embd - 1), f"q_norm own has {n_embd - 1} values: {head_dim} normalise each"),
        (NormsAsManyAsItLikes("k_norm", n_embd), rf"k_norm own has {n_embd} values: .* {n_head_kv * head_dim} all"),
        (TakesHalfTheHidden(), f"tensor half reads rows of {n_embd // 2} values, not {n_embd}"),
    ):
        with pytest.raises(ModelError, match=f"m.gguf: the family llama as installed cannot run .* in layer 0, {says}"):
            build_network(family, values, weights, name="llama", where="m.gguf")


def test_a_model_of_another_family(small: Callable[[str], Content]) -> None:
    with pytest.raises(AssertionError, match=r"general\.architecture is 'gpt2', which is not among \('llama',\)"):
        check_architecture(Llama(), *small("gpt2"))
    values, weights = small("tinyllama-1.1b")
    del weights["output_norm.weight"]
    with pytest.raises(AssertionError, match=r"llama: the model is refused: .*output_norm\.weight"):
        check_architecture(Llama(), values, weights)


class GGUFOnly(Llama):
    from_hugging_face = Architecture.from_hugging_face


def test_a_family_without_other_spellings_refuses_them(small: Callable[[str], Content]) -> None:
    values, weights = small("tinyllama-1.1b")
    weights["model.embed_tokens.weight"] = evolve(weights.pop("token_embd.weight"), name="model.embed_tokens.weight")
    with pytest.raises(
        ModelError,
        match=r"m\.gguf: tensor model\.embed_tokens\.weight is not called token_embd\.weight: the family llama",
    ):
        build_network(GGUFOnly(), values, weights, name="llama", where="m.gguf")
    build_network(Llama(), values, weights, name="llama")


def test_two_names_for_one_tensor(small: Callable[[str], Content], tmp_path: Path) -> None:
    values, weights = small("tinyllama-1.1b")
    table = weights.pop("token_embd.weight")
    for name in ("model.embed_tokens.weight", "tok_embeddings.weight"):
        weights[name] = evolve(table, name=name)
    with pytest.raises(
        ModelError, match=r"tensors model\.embed_tokens\.weight and tok_embeddings\.weight are both token_embd"
    ):
        build_network(Llama(), values, weights, name="llama")


def test_degrade_fills_in_what_is_missing(small: Callable[[str], Content], caplog: pytest.LogCaptureFixture) -> None:
    values, weights = small("tinyllama-1.1b")
    del weights["blk.1.ffn_norm.weight"], weights["blk.1.ffn_up.weight"]
    _, network, tensors = build_network(Llama(), values, weights, name="llama", where="m.gguf", degrade=True)
    assert tensors.degraded == 2
    assert "m.gguf: tensor blk.1.ffn_norm.weight is missing; using 1 everywhere" in caplog.text
    filled = {weight.name: weight for weight in network.weights()}["blk.1.ffn_up.weight"]
    assert not np.any(filled.dequantize())


LINES = 30  # of a family that is data only, as ruff formats them
DATA = {"names", "config", "embedding", "block", "head"}


def is_data_only(family: type[Architecture[Any]], source: str) -> bool:
    """Whether it reads a config without fields of its own, returns records, refuses nothing and moves no weights."""
    config = inspect.get_annotations(family.config, eval_str=True)["return"]
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(source)))
    return config in (ModelConfig, ExpertsConfig) and not raises and {n for n in vars(family) if n[0] != "_"} <= DATA


def test_families_that_are_data_only_are_short() -> None:
    modules = defaultdict(set)
    for family in installed().records("architectures"):
        modules[type(family).__module__].add(type(family))
    sources = {name: inspect.getsource(sys.modules[name]) for name in modules}
    only = [name for name in modules if all(is_data_only(family, sources[name]) for family in modules[name])]
    assert {"sis_bloom.bloom", "sis_phi.phimoe", "sis_stablelm.stablelm", "sis_gpt_oss.gpt_oss"} <= set(only)
    assert {name: n for name in only if (n := len(sources[name].splitlines())) > LINES} == {}
