"""Every family against golden logits, and what its files may look like.

The goldens are logits of Hugging Face's models in float64 (see goldens/logits/README.md). The files are written here,
from the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import random_model
import sis_gemma
import sis_gpt2
import sis_gptneox
import sis_llama
import sis_phi
import sis_qwen
from attrs import evolve
from shapes import SHAPES

from sis_core.architecture import ModelConfig
from sis_core.arrays import F32
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.numpy import NumpyBackend
from sis_core.block import Attention, Network, Residual
from sis_core.errors import ModelError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.model import Model
from sis_core.loading.network import build_network
from sis_core.loading.open import open_model
from sis_core.loading.weights import file_weights
from sis_core.quant import F16Format, Weight
from sis_core.registry import Registry
from sis_core.rope import rope_frequencies, yarn_frequencies
from sis_core.step import Batch, Run
from sis_core.tensors import reordered

FAMILIES = Registry.of(sis_gemma, sis_gpt2, sis_gptneox, sis_llama, sis_phi, sis_qwen)
GOLDENS = sorted((Path(__file__).parent / "goldens" / "logits").glob("*.npz"))
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the tiny file of a shape, once, and checks that its weights are those of the golden."""
    folder = tmp_path_factory.mktemp("shapes")

    @cache
    def write(shape: str) -> Path:
        with np.load(GOLDENS[0].with_name(f"{shape}.npz")) as golden:
            seed, digest = int(golden["seed"]), str(golden["tensors_sha256"])
        path = folder / f"{shape}.gguf"
        assert random_model.write_model(SHAPES[shape].scaled_down(), path, seed=seed) == digest
        return path

    return write


class Golden:
    """A golden with its model opened in float32."""

    def __init__(self, path: Path, model: Model) -> None:
        self.model = model
        with np.load(path) as golden:
            self.tokens, self.logits = golden["tokens"], golden["logits"]

    def error(self, logits: Any) -> float:
        return float(np.abs(np.asarray(logits, np.float64) - self.logits).max() / np.abs(self.logits).max())


@pytest.fixture(params=GOLDENS, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tiny_file: Callable[[str], Path]) -> Iterator[Golden]:
    path = request.param
    with open_model(
        Model, tiny_file(path.stem), FAMILIES, backend="numpy", options=BackendOptions(kv_type="f32")
    ) as model:
        yield Golden(path, model)


def test_whole_prompt(golden: Golden) -> None:
    n = len(golden.tokens)
    logits = golden.model.step(Batch.of(golden.tokens, outputs=range(n)), golden.model.new_cache(n)).values
    assert golden.error(logits) < TOLERANCE


def test_token_by_token(golden: Golden) -> None:
    cache = golden.model.new_cache(len(golden.tokens))
    logits = [golden.model.step(Batch.of([t], position=i), cache).values[0] for i, t in enumerate(golden.tokens)]
    assert golden.error(logits) < TOLERANCE


def test_two_sequences_in_a_batch(golden: Golden) -> None:
    """The golden's text in two uneven parts, after as many rows of another text."""
    n, split = len(golden.tokens), 7
    cache = golden.model.new_cache(4 * n)
    logits = []
    for start, stop in ((0, split), (split, n)):
        own = np.arange(start, stop)
        tokens = np.concatenate([golden.tokens[n - 1 - own], golden.tokens[own]])
        runs = (Run(2, start, len(own)), Run(5, start, len(own)))
        batch = Batch(tokens, runs, range(len(own), 2 * len(own)))
        logits += list(golden.model.step(batch, cache).values)
    assert golden.error(logits) < TOLERANCE


def test_half_precision_cache(golden: Golden, tiny_file: Callable[[str], Path]) -> None:
    n = len(golden.tokens)
    options = BackendOptions(kv_type="f16")
    with open_model(Model, golden.model.path, FAMILIES, backend="numpy", options=options) as model:
        logits = model.step(Batch.of(golden.tokens, outputs=range(n)), model.new_cache(n)).values
    assert 0 < golden.error(logits) < 5e-3


def test_every_shape_has_a_golden() -> None:
    assert {path.stem for path in GOLDENS} == set(SHAPES)


# --- Other spellings -------------------------------------------------------------------------------------------------


def content(path: Path) -> tuple[dict[str, Any], dict[str, Weight]]:
    """Metadata and weights of a file, in memory."""
    with GGUFFile.open(path) as file:
        weights = {
            name: Weight.from_array(name, weight.dequantize().copy())
            for name, weight in file_weights(file, FAMILIES).items()
        }
        return dict(file.metadata), weights


def build(values: dict[str, Any], weights: dict[str, Weight], **options: Any) -> tuple[ModelConfig, Network]:
    name = values["general.architecture"]
    config, network, _ = build_network(
        FAMILIES.get("architectures", name), values, weights, name=name, where="test.gguf", **options
    )
    return config, network


def run(network: Network, tokens: Any) -> F32:
    forward = bind(network, [NumpyBackend()], BackendOptions())
    return forward.step(Batch.of(tokens, outputs=range(len(tokens))), forward.new_cache("f32", 64)).values


HF_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}


def hugging_face(shape: str, values: dict[str, Any], weights: dict[str, Weight]) -> dict[str, Weight]:
    """The same weights as Hugging Face names and orders them, by the facts in llama.cpp's converters."""
    small = SHAPES[shape].scaled_down()
    arch, heads, kv_heads = small.arch, small.n_head, small.n_head_kv
    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(known[arch], values[f"{arch}.block_count"])
    marks = {
        "gpt2": ("transformer.h.", "transformer.w", "transformer.ln_f"),
        "gptneox": ("gpt_neox.", "embed_out"),
    }.get(arch, ("model.layers.", "model.embed_tokens", "model.norm", "lm_head"))
    skip = ("masked_bias", "rotary_emb", "mlp.act", "linear_attn", "block_sparse_moe")
    named: dict[str, str] = {}
    for name, (_, role) in table.mapping.items():
        if name.startswith(marks) and not any(part in name for part in skip):
            named.setdefault(role, name)
    renamed = {}
    for role, weight in weights.items():
        stem, _, suffix = role.rpartition(".")
        array = weight.dequantize()
        part = stem.rpartition(".")[2]
        if arch == "llama" and part in ("attn_q", "attn_k"):
            n = heads if part == "attn_q" else kv_heads
            array = array.reshape(n, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        if arch == "gptneox" and part == "attn_qkv":
            array = array.reshape(3, heads, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
        if arch == "gpt2" and array.ndim == 2 and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
            array = array.T
        if arch.startswith("gemma") and stem.endswith("norm"):
            array = array - 1
        name = f"{named[stem]}.{suffix}" if stem in named else role
        renamed[name] = Weight.from_array(name, np.ascontiguousarray(array))
    return renamed


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "llama-3.2-1b"])
def test_hugging_face_names(shape: str, tiny_file: Callable[[str], Path]) -> None:
    values, weights = content(tiny_file(shape))
    arch = SHAPES[shape].arch
    foreign = hugging_face(shape, values, weights)
    assert not set(foreign) & set(weights), "every tensor should have got another name"
    spelt = {
        HF_KEYS.get(key.removeprefix(f"{arch}."), key) if key.startswith(arch) else key: value
        for key, value in values.items()
    }
    assert f"{arch}.block_count" not in spelt
    tokens = np.load(GOLDENS[0].with_name(f"{shape}.npz"))["tokens"]
    expected = run(build(values, weights)[1], tokens)
    np.testing.assert_allclose(run(build(spelt, foreign)[1], tokens), expected, rtol=0, atol=1e-5)


def test_gpt_neox_spelling(tiny_file: Callable[[str], Path]) -> None:
    values, weights = content(tiny_file("pythia-160m"))
    spelt = {key.replace("gptneox.", "gpt_neox."): value for key, value in values.items()}
    spelt["general.architecture"] = "gpt_neox"
    spelt["rotary_pct"] = spelt.pop("gpt_neox.rope.dimension_count") / 16
    spelt["gpt_j_residual"] = spelt.pop("gpt_neox.use_parallel_residual")
    config, network = build(spelt, weights)
    assert config.rope is not None
    assert config.rope.n_rot == 4
    np.testing.assert_array_equal(run(network, [1, 2, 3]), run(build(values, weights)[1], [1, 2, 3]))


def test_block_formats_keep_their_bytes_when_rows_move() -> None:
    values = np.arange(48, dtype=np.float32).reshape(6, 8)
    moved = reordered(Weight.from_array("w", values, F16Format()), np.array([5, 0, 1, 2, 3, 4], np.int32))
    assert moved.format.name == "F16"
    np.testing.assert_array_equal(moved.dequantize(), values[[5, 0, 1, 2, 3, 4]])


def test_a_transposed_block_format_is_refused() -> None:
    class Blocks(F16Format):
        name = "Q9_9"

    weight = Weight.from_array("transformer.h.0.attn.c_attn.weight", np.zeros((2, 2), np.float32), Blocks())
    config = ModelConfig("gpt2", 1, 2, 2, 2, 2, (1,), (1,), (8,), 2, 1e-5)
    with pytest.raises(ModelError, match=r"c_attn\.weight is stored by columns in the block format Q9_9"):
        FAMILIES.get("architectures", "gpt2").from_hugging_face(config, "blk.0.attn_qkv.weight", weight)


# --- What each family reads ------------------------------------------------------------------------------------------


def attention(network: Network, i: int) -> Attention:
    """The attention of layer ``i``."""
    residual = network.blocks[i].ops[0]
    assert isinstance(residual, Residual)
    return next(op for branch in residual.branches for op in branch if isinstance(op, Attention))


def rebuilt(tiny_file: Callable[[str], Path], shape: str, **options: Any) -> Callable[..., tuple[ModelConfig, Network]]:
    """Builds the shape's network with changed keys (double underscores for dots; None removes one)."""
    values, weights = content(tiny_file(shape))
    arch = SHAPES[shape].arch

    def change(extra: dict[str, Weight] | None = None, **changes: Any) -> tuple[ModelConfig, Network]:
        changed = values | {f"{arch}.{key.replace('__', '.')}": value for key, value in changes.items()}
        given = {key: value for key, value in changed.items() if value is not None}
        return build(given, weights | (extra or {}), **options)

    return change


def test_gpt2_refuses_a_context_past_its_positions(tiny_file: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"context of 257 tokens .* position_embd\.weight has 256"):
        rebuilt(tiny_file, "gpt2", n_ctx=257)()


def test_gptneox_in_turn(tiny_file: Callable[[str], Path]) -> None:
    _, network = rebuilt(tiny_file, "pythia-160m")(use_parallel_residual=False)
    assert [len(op.branches) for op in network.blocks[0].ops if isinstance(op, Residual)] == [1, 1]
    _, network = rebuilt(tiny_file, "pythia-160m")()
    assert [len(op.branches) for op in network.blocks[0].ops if isinstance(op, Residual)] == [2]


def test_llama_window_of_mistral(tiny_file: Callable[[str], Path]) -> None:
    _, network = rebuilt(tiny_file, "tinyllama-1.1b")(attention__sliding_window=5)
    assert [block.state and block.state.window for block in network.blocks] == [5, 5, 5]
    assert rebuilt(tiny_file, "tinyllama-1.1b")(attention__sliding_window=0)[1].blocks[0].state.window is None  # type: ignore[union-attr]


@pytest.mark.parametrize("scale_key", ["rope__scaling__factor", "rope__scale_linear"])
def test_linear_rope_scaling_is_what_a_factor_alone_means(scale_key: str, tiny_file: Callable[[str], Path]) -> None:
    change = rebuilt(tiny_file, "tinyllama-1.1b")
    for changes in ({}, {"rope__scaling__type": "linear"}):
        rope = attention(change(**{scale_key: 4.0}, **changes)[1], 0).rope
        assert rope is not None
        np.testing.assert_allclose(rope.frequencies, rope_frequencies(16, 10000.0) / 4)
    rope = attention(change(**{scale_key: 4.0}, rope__scaling__type="none")[1], 0).rope
    assert rope is not None
    np.testing.assert_allclose(rope.frequencies, rope_frequencies(16, 10000.0))


def test_yarn(tiny_file: Callable[[str], Path]) -> None:
    change = rebuilt(tiny_file, "qwen2.5-0.5b")
    keys = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 64}
    rope = attention(change(**keys)[1], 0).rope
    assert rope is not None
    np.testing.assert_allclose(rope.frequencies, yarn_frequencies(16, 1e6, factor=4.0, n_ctx_original=64))
    assert rope.magnitude == pytest.approx(1 + 0.1 * math.log(4))
    for key, value, magnitude in (
        ("rope__scaling__yarn_attn_factor", 0.7, 0.7),
        ("rope__scaling__attn_factor", 2.0, 2 * (1 + 0.1 * math.log(4))),
        ("rope__scaling__yarn_log_multiplier", 1.0, 1.0),
    ):
        rope = attention(change(**keys, **{key: value})[1], 0).rope
        assert rope is not None
        assert rope.magnitude == pytest.approx(magnitude), key
    with pytest.raises(ModelError, match=r"yarn_ext_factor is not 1"):
        change(**keys, rope__scaling__yarn_ext_factor=0.5)


def test_gemma2_defaults_and_the_27b_scale(tiny_file: Callable[[str], Path]) -> None:
    change = rebuilt(tiny_file, "gemma-2-2b")
    left_out = {"attention__sliding_window": None, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    _, network = change(**left_out)
    assert [block.state and block.state.window for block in network.blocks] == [4096, None, 4096, None]
    assert (attention(network, 0).softcap, network.head.softcap) == (50.0, 30.0)
    _, network = change(attn_logit_softcapping=0.0, final_logit_softcapping=0.0)
    assert (attention(network, 0).softcap, network.head.softcap) == (None, None)
    assert attention(network, 0).scale == pytest.approx(32**-0.5)
    with pytest.raises(ModelError, match=r"attn_logit_softcapping is -0\.5, but must be above 0"):
        change(attn_logit_softcapping=-0.5)
    values, weights = content(tiny_file("gemma-2-2b"))
    deep = {f"blk.{i}.{n.split('.', 2)[2]}": w for n, w in weights.items() if n.startswith("blk.0.") for i in range(46)}
    _, network = build(values | {"gemma2.block_count": 46}, weights | deep)
    assert attention(network, 0).scale == pytest.approx(16**-0.5)


def test_gemma3_windows_and_bases(tiny_file: Callable[[str], Path]) -> None:
    change = rebuilt(tiny_file, "gemma-3-1b")
    _, network = change(rope__freq_base_swa=None, rope__scaling__type="linear", rope__scaling__factor=8.0)
    assert [block.state and block.state.window for block in network.blocks] == [5, 5, 5, 5, 5, None, 5]
    near, far = attention(network, 0).rope, attention(network, 5).rope
    assert near is not None
    assert far is not None
    np.testing.assert_allclose(near.frequencies, rope_frequencies(32, 10000.0))
    np.testing.assert_allclose(far.frequencies, rope_frequencies(32, 1e6) / 8)
    _, network = change(attention__sliding_window_pattern=[True, False] * 3 + [True])
    assert [block.state and block.state.window for block in network.blocks] == [5, None, 5, None, 5, None, 5]
    _, network = change(attention__sliding_window=None)
    assert {block.state and block.state.window for block in network.blocks} == {None}


def test_gemma3_of_ollama_says_less(tiny_file: Callable[[str], Path]) -> None:
    change = rebuilt(tiny_file, "gemma-3-1b")
    said = {"rope__freq_base": None, "rope__freq_base_swa": None, "attention__layer_norm_rms_epsilon": None}
    rope = attention(change(**said)[1], 5).rope
    assert rope is not None
    np.testing.assert_allclose(rope.frequencies, rope_frequencies(32, 1e6))
    config, network = change(**said, vision__block_count=27, mm__tokens_per_image=256)
    near, far = attention(network, 0).rope, attention(network, 5).rope
    assert near is not None
    assert far is not None
    np.testing.assert_allclose(near.frequencies, rope_frequencies(32, 10000.0))
    np.testing.assert_allclose(far.frequencies, rope_frequencies(32, 1e6) / 8)
    assert config.norm_eps == 1e-6


def test_gemma1_is_gemma2_without_its_additions(tiny_file: Callable[[str], Path]) -> None:
    values, weights = content(tiny_file("gemma-2-2b"))
    kept = {n: w for n, w in weights.items() if "post_" not in n}
    drop = ("softcapping", "sliding_window")
    old = {k.replace("gemma2", "gemma"): v for k, v in values.items() if not k.endswith(drop)}
    _, network = build(old | {"general.architecture": "gemma"}, kept)
    assert network.embedding.scale == pytest.approx(8.0)
    assert attention(network, 0).scale == pytest.approx(32**-0.5)
    assert network.head.dense.weight.name == "token_embd.weight"
    assert np.isfinite(run(network, [1, 2, 3])).all()


def longrope(n: int = 12) -> dict[str, Weight]:
    names = {"rope_factors_long.weight": 3.0, "rope_factors_short.weight": 1.5}
    return {name: Weight.from_array(name, np.full(n, value, np.float32)) for name, value in names.items()}


@pytest.mark.parametrize(("n_ctx", "factor"), [(64, 1.5), (65, 3.0), (None, 1.5)])
def test_phi3_longrope_is_chosen_by_the_context(
    n_ctx: int | None, factor: float, tiny_file: Callable[[str], Path]
) -> None:
    change = rebuilt(tiny_file, "phi-3-mini", n_ctx=n_ctx)
    config, network = change(longrope(), rope__scaling__original_context_length=64)
    assert config.n_ctx == (n_ctx or 64)  # nobody asks: the context before it was stretched, whatever memory allows
    rope = attention(network, 0).rope
    assert rope is not None
    np.testing.assert_allclose(rope.frequencies, rope_frequencies(24, 10000.0) / factor)
    assert rope.magnitude == pytest.approx(math.sqrt(1 + math.log(4) / math.log(64)))
    _, network = change(longrope(), rope__scaling__original_context_length=64, rope__scaling__attn_factor=1.19)
    rope = attention(network, 0).rope
    assert rope is not None
    assert rope.magnitude == pytest.approx(1.19)


def test_phi3_longrope_needs_its_factors(tiny_file: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"tensor rope_factors_long\.weight \(12,\) is missing"):
        rebuilt(tiny_file, "phi-3-mini")(rope__scaling__original_context_length=64)
    broken = longrope() | {"rope_factors_long.weight": Weight.from_array("x", np.zeros(12, np.float32))}
    with pytest.raises(ModelError, match="must hold numbers above 0"):
        rebuilt(tiny_file, "phi-3-mini")(broken, rope__scaling__original_context_length=64)


def test_phi3_reads_slices_of_its_fused_tensors(tiny_file: Callable[[str], Path]) -> None:
    _, network = rebuilt(tiny_file, "phi-3-mini")()
    op = attention(network, 1)
    assert [w.name for w in (op.q.weight, op.k.weight, op.v.weight)] == ["blk.1.attn_qkv.weight"] * 3
    assert [w.first_row for w in (op.q.weight, op.k.weight, op.v.weight)] == [0, 96, 192]
    assert network.blocks[0].state is not None
    assert network.blocks[0].state.window == 2047


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_that_converters_write_are_no_reason_to_refuse(shape: str, tiny_file: Callable[[str], Path]) -> None:
    rebuilt(tiny_file, shape)(
        vocab_size=SHAPES[shape].scaled_down().n_vocab,
        expert_count=0,
        expert_used_count=0,
        attention__causal=True,
        attention__layer_norm_epsilon=1e-5,
        attention__layer_norm_rms_epsilon=1e-5,
        attention__clamp_kqv=0.0,
        attention__max_alibi_bias=0.0,
        logit_scale=0.0,
        pooling_type=0,
        tensor_data_layout="Meta AI original pth",
        rope__scaling__finetuned=True,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_shared_count", 2),
        ("logit_scale", 0.5),
        ("attention.clamp_kqv", 8.0),
        ("attention.max_alibi_bias", 8.0),
        ("attention.temperature_scale", 0.1),
        ("residual_scale", 0.22),
        ("nextn_predict_layers", 1),
        ("rope.dimension_sections", [16, 24, 24, 0]),
        ("classifier.output_labels", ["yes", "no"]),
    ],
)
def test_keys_of_features_that_no_family_has_are_refused(
    shape: str, key: str, value: Any, tiny_file: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelError, match=f"does not implement what the key {SHAPES[shape].arch}.{key} asks for"):
        rebuilt(tiny_file, shape)(**{key.replace(".", "__"): value})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_that_no_family_has_is_refused(shape: str, tiny_file: Callable[[str], Path]) -> None:
    extra = {"blk.0.attn_sinks.weight": Weight.from_array("blk.0.attn_sinks.weight", np.zeros(4, np.float32))}
    with pytest.raises(ModelError, match=r"no use for tensor blk\.0\.attn_sinks\.weight"):
        rebuilt(tiny_file, shape)(extra)


def test_context_may_be_shorter_or_longer_than_trained(tiny_file: Callable[[str], Path]) -> None:
    assert rebuilt(tiny_file, "qwen3-0.6b", n_ctx=16)()[0].n_ctx == 16
    config, network = rebuilt(tiny_file, "qwen3-0.6b", n_ctx=1000)()
    assert (config.n_ctx, config.n_ctx_train, network.n_ctx) == (1000, 256, 1000)
    assert evolve(config, n_ctx=5).n_ctx_train == 256
