"""What `sis quantize` writes: formats, rules, what stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from workbench import format_file, inside, quantise, refused, sis, types

from sis_core.gguf_file import GGUFFile
from sis_core.loading.weights import file_weights
from sis_core.registry import Registry
from sis_core.texts.language_model import load
from sis_core.workbench.quantizer.plan import find_format
from sis_core.workbench.scan import check_weights


def work_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.sis-work")


@pytest.fixture
def registry() -> Registry:
    return Registry.load()


def test_matrices_change_and_the_rest_stays(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = quantise(random_model, tmp_path / "out.gguf", "q8_0", registry)
    for name, type in types(out).items():
        assert type == ("F32" if "norm" in name else "Q8_0"), name
    with GGUFFile.open(out) as made, GGUFFile.open(random_model) as source:
        for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
            np.testing.assert_array_equal(made.raw(name), source.raw(name))
        ours, theirs = file_weights(made, registry), file_weights(source, registry)
        for name, weight in ours.items():
            np.testing.assert_allclose(weight.dequantize(), theirs[name].dequantize(), atol=0.02)
        check_weights(ours.values())
        assert made.metadata["general.file_type"] == 7
        assert made.metadata["general.quantization_version"] == 2
        assert made.metadata["general.name"] == "random llama"
    assert not work_folder(out).exists()


def test_bytes_are_those_of_the_format_itself(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = quantise(random_model, tmp_path / "out.gguf", "Q4_0", registry, pure=True)
    format = find_format(registry, "q4_0", "")
    for name, values in tiny_models.tensors().items():
        if values.ndim == 2:
            with GGUFFile.open(out) as made:
                np.testing.assert_array_equal(made.raw(name), format.quantize(values).reshape(-1))


def test_the_head_gets_more_bits_unless_pure(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    mixed = types(quantise(random_model, tmp_path / "a.gguf", "q4_0", registry))
    assert (mixed["output.weight"], mixed["token_embd.weight"], mixed["blk.0.attn_q.weight"]) == (
        "Q8_0",
        "Q4_0",
        "Q4_0",
    )
    assert types(quantise(random_model, tmp_path / "b.gguf", "q4_0", registry, pure=True))["output.weight"] == "Q4_0"


def test_rules_by_pattern_first_match_wins(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    rules = ("blk.0.ffn_down.weight=keep", "blk.*.ffn_down.weight=f16", "blk.*=q8_0")
    done = inside(
        "quantize", random_model, out, "--to", "q4_0", *(part for rule in rules for part in ("--tensor", rule))
    )
    assert done.returncode == 0, done.stderr
    found = types(out)
    assert found["blk.0.ffn_down.weight"] == "F32"
    assert found["blk.1.ffn_down.weight"] == "F16"
    assert found["blk.1.attn_q.weight"] == "Q8_0"
    assert found["blk.1.attn_norm.weight"] == "F32"
    assert found["token_embd.weight"] == "Q4_0"


def test_dry_run_and_json(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    done = inside("quantize", random_model, out, "--to", "q8_0", "--dry-run")
    assert done.returncode == 0
    assert "blk.0.attn_q.weight\t32 × 32\tF32\tQ8_0" in done.stdout
    assert not out.exists()
    made = json.loads(inside("quantize", random_model, out, "--to", "q8_0", "--json").stdout)
    assert made["bytes"] == out.stat().st_size
    assert 8.5 < made["bits_per_weight"] < 8.8
    assert {row["to"] for row in made["tensors"]} == {"Q8_0", "F32"}
    assert "\x1b" not in done.stdout + done.stderr


def test_the_quantised_model_runs(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    out = quantise(random_model, tmp_path / "out.gguf", "q8_0", registry)
    with load(random_model, registry=registry) as original, load(out, registry=registry) as made:
        ours, theirs = made.logits("Once").reshape(-1), original.logits("Once").reshape(-1)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_foreign_formats_in_one_file(random_model: Path, tmp_path: Path) -> None:
    one, two = format_file(tmp_path, "one", name="ONE8"), format_file(tmp_path, "two", name="two-8", block_size=32)
    out = tmp_path / "out.gguf"
    both = ("--plugin", one, "--plugin", two)
    done = sis(*both, "quantize", random_model, out, "--to", "one8", "--pure", "--tensor", "*.ffn_*.weight=TWO-8")
    assert done.returncode == 0, done.stderr
    found = types(out)
    assert (found["blk.0.attn_q.weight"], found["blk.0.ffn_up.weight"]) == ("ONE8", "two-8")
    with GGUFFile.open(out) as file:
        assert "general.file_type" not in file.metadata
        assert file.tensors["blk.0.ffn_up.weight"].package == ""  # a file's name may be somebody's package
    assert sis(*both, "generate", "-m", out, "-n", 3, "--ignore-end", "Once").returncode == 0
    missing = sis("--plugin", one, "generate", "-m", out, "-n", 3, "Once")
    refused(missing, "ffn_", "its format 'two-8' is not installed", "names no package", "with --plugin")
    assert sis("inspect", out).returncode == 0
    again = tmp_path / "again.gguf"
    rule = ("--tensor", "*.ffn_*.weight=keep")
    # What is only copied needs no codec: the plugin of the kept tensors is not here.
    done = sis("--plugin", one, "quantize", out, again, "--to", "q8_0", "--requantize", *rule)
    assert done.returncode == 0, done.stderr
    with GGUFFile.open(again) as file:
        assert file.tensors["blk.0.ffn_up.weight"].type_name == "two-8"


def test_two_plugins_claim_one_id(random_model: Path, tmp_path: Path) -> None:
    ours = format_file(tmp_path, "ours", name="OURS", type_id=200)
    theirs = format_file(tmp_path, "theirs", name="THEIRS", type_id=200, limit=64.0)
    out = tmp_path / "out.gguf"
    assert sis("--plugin", ours, "quantize", random_model, out, "--to", "ours", "--pure").returncode == 0
    assert types(out)["output.weight"] == "type 200"
    run = ("--plugin", ours, "--plugin", theirs, "generate", "-m", out, "-n", 4, "--sampler", "greedy", "Once")
    alone = sis("--plugin", ours, "generate", "-m", out, "-n", 4, "--sampler", "greedy", "Once")
    refused(sis(*run), "'type 200' is claimed by two plugins: ours and theirs", "--prefer 200=ours")
    assert sis(*run, "--prefer", "200=ours").stdout == alone.stdout != ""
    both = ("--plugin", ours, "--plugin", theirs, "quantize", random_model, tmp_path / "b.gguf", "--to", "ours")
    refused(sis(*both), "is claimed by two plugins: ours and theirs")
    refused(sis(*both, "--prefer", "200=theirs"), "type 200 is preferred to mean another format than OURS")
    assert sis(*both, "--prefer", "200=ours").returncode == 0
