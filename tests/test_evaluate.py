"""sis eval and sis compare-formats: perplexity, divergence, errors of weights, tables and plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from workbench import format_file, inside, interrupted, refused, sis

from sis_core.cli.report import comma_separated, markdown
from sis_core.errors import ContextError, ModelError, SourceError
from sis_core.gguf_file import GGUFFile
from sis_core.registry import Registry
from sis_core.sampler import log_softmax
from sis_core.texts.language_model import LanguageModel, load
from sis_core.workbench.comparison import FormatRow, draw_plot
from sis_core.workbench.evaluate import evaluate, tensor_errors
from sis_core.workbench.quantizer import make_plan, quantize_file

TEXT = "Once upon a time there was a little hen who lived in a small red house. " * 8


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def model(random_model: Path, registry: Registry) -> Iterator[LanguageModel]:
    with load(random_model, registry=registry, kv_type="f32", backend="numpy") as opened:
        yield opened


@pytest.fixture(scope="module")
def quantised(random_model: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantised") / "q8.gguf"
    with GGUFFile.open(random_model) as file:
        quantize_file(file, out, make_plan(file, registry, "q8_0"))
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def by_hand(model: LanguageModel, tokens: list[int], n_ctx: int) -> list[float]:
    """Negative log-likelihoods of the scored tokens, one chunk at once."""
    found = []
    for start in range(0, len(tokens) // n_ctx * n_ctx, n_ctx):
        chunk = tokens[start : start + n_ctx]
        logits = log_softmax(model.logits([tiny_models.BOS, *chunk[1:]]))
        found += [-logits[i, chunk[i + 1]] for i in range(n_ctx // 2, n_ctx - 1)]
    return found


@pytest.mark.parametrize("n_ctx", [32, 33, 64])
def test_perplexity_is_that_of_the_second_half_of_each_chunk(model: LanguageModel, n_ctx: int) -> None:
    tokens = model.tokenize(TEXT)
    nll = by_hand(model, tokens, n_ctx)
    score = evaluate(model, tokens, n_ctx=n_ctx)
    assert score.n_chunks == len(tokens) // n_ctx
    assert score.n_tokens == len(nll)
    np.testing.assert_allclose(score.perplexity, np.exp(np.mean(nll)), rtol=1e-5)
    np.testing.assert_allclose(score.error, score.perplexity * np.std(nll, ddof=1) / np.sqrt(len(nll)), rtol=1e-4)


def test_chunks_longer_than_a_step(random_model: Path, registry: Registry) -> None:
    with load(random_model, registry=registry, kv_type="f32", backend="numpy", n_ctx=1200) as model:
        tokens = np.random.default_rng(0).integers(0, 256, 1300).tolist()
        np.testing.assert_allclose(
            evaluate(model, tokens, n_ctx=1200).nll, np.mean(by_hand(model, tokens, 1200)), rtol=1e-5
        )


def test_a_model_does_not_differ_from_itself(model: LanguageModel, random_model: Path, registry: Registry) -> None:
    with load(random_model, registry=registry, kv_type="f32", backend="numpy") as other:
        score = evaluate(model, model.tokenize(TEXT), n_ctx=64, reference=other)
        assert score.divergence is not None
        assert score.divergence.kl_max < 1e-9
        assert score.divergence.top1 == 1
        assert score.divergence.reference_perplexity == score.perplexity
        assert tensor_errors(model, other) == []


def test_divergence_is_that_of_the_whole_distribution(
    quantised: Path, model: LanguageModel, registry: Registry
) -> None:
    tokens = model.tokenize(TEXT)[:64]
    with load(quantised, registry=registry, kv_type="f32", backend="numpy") as other:
        score = evaluate(other, tokens, n_ctx=64, reference=model)
        chunk = [tiny_models.BOS, *tokens[1:]]
        p, q = (log_softmax(m.logits(chunk))[32:63] for m in (model, other))
        errors = tensor_errors(other, model)
    kl = (np.exp(p) * (p - q)).sum(1)
    assert score.divergence is not None
    np.testing.assert_allclose(score.divergence.kl_mean, kl.mean(), rtol=1e-4)
    np.testing.assert_allclose(score.divergence.kl_max, kl.max(), rtol=1e-4)
    assert score.divergence.top1 == np.mean(p.argmax(1) == q.argmax(1))
    assert 0 < score.divergence.kl_mean < 0.1
    assert len(errors) == 16
    assert errors[0].relative >= errors[-1].relative > 0
    true = tiny_models.tensors()[errors[0].name]
    assert 0.001 < errors[0].rmse / np.sqrt((true**2).mean()) == pytest.approx(errors[0].relative, rel=1e-3)


def test_refusals(model: LanguageModel, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ContextError, match=r"the text has 5 tokens, fewer than one chunk of 512. Give a longer text"):
        evaluate(model, [1, 2, 3, 4, 5])
    values = tiny_models.metadata()
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"][:-1], "no"]
    values["tokenizer.ggml.merges"] = ["h e", "n o"]
    other = tiny_models.write_model(tmp_path / "other.gguf", values)
    with load(other, registry=registry) as stranger, pytest.raises(ModelError, match="its vocabulary of 260 tokens"):
        evaluate(model, model.tokenize(TEXT), n_ctx=32, reference=stranger)


def test_the_program(random_model: Path, quantised: Path, text: Path) -> None:
    done = sis("eval", quantised, "--against", random_model, "--text", text, "--ctx", 64, "--worst", 3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("perplexity ")
    assert "chunks of 64, on " in lines[0]
    assert "KL divergence" in done.stdout
    assert lines[-4].startswith("worst tensors\tformat")
    found = json.loads(sis("eval", quantised, "--against", random_model, "--text", text, "--ctx", 64, "--json").stdout)
    assert len(found["tensors"]) == 16
    assert found["score"]["divergence"]["top1"] > 0.8
    weights = sis("eval", quantised, "--against", random_model)
    assert weights.stdout.startswith("worst tensors")
    assert "every tensor that both have is equal" in sis("eval", random_model, "--against", random_model).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--text", "TEXT", "--on-error", "degrade"], "figures of a run that may guess are worth nothing"),
        (["--text", "TEXT", "--ctx", "5000"], "fewer than one chunk of 5000"),
        (["--text", "absent.txt"], "absent.txt: cannot be read"),
        (["--against", "absent.gguf"], "absent.gguf: no such file"),
        (["--text", "TEXT", "--backend", "warp"], "no installed plugin brings the backend 'warp'"),
        ([], "there is nothing to measure"),
    ],
)
def test_bad_options(random_model: Path, text: Path, args: list[str], message: str) -> None:
    refused(inside("eval", random_model, *(str(text) if arg == "TEXT" else arg for arg in args)), message)


def test_compare_formats(random_model: Path, text: Path, tmp_path: Path) -> None:
    mine = format_file(tmp_path, "mine", name="my-format")
    outputs = [tmp_path / name for name in ("t.md", "t.csv", "t.json")]
    args: list[Any] = ["--plugin", mine, "compare-formats", random_model, "--formats", "q4_0,q8_0,my-format"]
    args += ["--text", text, "--ctx", 64, "-r", 1, "--chunks", 2, *(part for o in outputs for part in ("-o", o))]
    done = sis(*args, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["format"] for row in rows] == ["original", "Q4_0", "Q8_0", "my-format"]
    assert rows[0]["kl"] is None
    assert rows[1]["kl"] > rows[2]["kl"] > 0
    assert rows[0]["bits"] == 32 > rows[2]["bits"] > rows[1]["bits"] > 4
    assert all(row["tg"] > 0 and row["pp"] > 0 and row["memory_mib"] > 0 for row in rows)
    assert outputs[0].read_text().startswith("| format | bits/weight |")
    assert len(list(csv.DictReader(io.StringIO(outputs[1].read_text())))) == 4
    assert len(json.loads(outputs[2].read_text())["rows"]) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--formats", "q8_0,nope"], "no installed plugin brings the format 'nope'"),
        (["--formats", ","], "names no format"),
        (["--formats", "q8_0", "-o", "x.xlsx"], ".xlsx is no kind of table or plot"),
        (["--formats", "q8_0", "-o", "no/x.md"], "the folder no does not exist"),
        (["--formats", "q8_0", "--on-error", "degrade"], "worth nothing"),
        (["--formats", "q8_0", "--ctx", "5000"], "fewer than one chunk of 5000"),
    ],
)
def test_bad_comparisons(
    random_model: Path, text: Path, tmp_path: Path, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(inside("compare-formats", random_model, "--text", text, *args), message)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c(random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(TEXT * 2000)
    interrupted("eval", random_model, "--text", tmp_path / "long.txt", "--ctx", 64)
    work = tmp_path / "work"
    work.mkdir()
    args = ("--formats", "q8_0", "--text", tmp_path / "long.txt", "--ctx", 64, "--folder", work)
    interrupted("compare-formats", random_model, *args)
    assert list(work.iterdir()) == []


ROWS = [
    FormatRow("original", 32, 1, 2, 10.0, None, None, None, 100, 50, 40, 55),
    FormatRow("Q8_0", 8.5, 0.3, 1, 10.1, 0.001, 0.98, 0.01, 120, 60, 60, 60),
    FormatRow("Q4_0", 4.5, 0.2, 0.5, 11.0, 0.1, 0.8, 0.1, 130, 90, 80, 91),
]


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, magic in (("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF")):
        draw_plot(ROWS, tmp_path / name, "a title")
        assert (tmp_path / name).read_bytes().startswith(magic)
    with pytest.raises(SourceError, match="cannot be written"):
        draw_plot(ROWS, tmp_path / "absent" / "p.png", "")


def test_plots_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SourceError, match=r"pip install 'sis-core\[plot\]'"):
        draw_plot(ROWS, tmp_path / "p.png", "")


def test_tables() -> None:
    rows = [{"a": "x|y", "b": 1.23456, "c": None}, {"a": "z", "b": 123456.7, "c": 3}]
    assert markdown(["a", "b", "c"], rows) == (
        "| a | b | c |\n| --- | ---: | ---: |\n| x\\|y | 1.235 | – |\n| z | 123,457 | 3 |\n"
    )
    assert comma_separated(["a", "b"], rows) == "a,b\nx|y,1.23456\nz,123456.7\n"
