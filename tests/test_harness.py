"""sis eval --tasks: lm-eval's questions, answered by a model of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from workbench import sis

from sis_core import load
from sis_core.cli.eval import command
from sis_core.errors import ModelError, SourceError
from sis_core.sampler import log_softmax
from sis_core.texts.language_model import LanguageModel

TEXT = (
    "Once upon a time there was a hen who lived beside a goat. Every morning the goat went to the river, and the hen "
    "looked for corn in the yard."
)
PAIRS = [(TEXT[:i], TEXT[i : i + n]) for i, n in ((32, 38), (57, 12), (57, 20), (1, 90), (0, 9))]
QUESTIONS = [
    {"question": "Once upon a time there was a", "choices": [" little girl", " zqx vbn"], "answer": 0},
    {"question": "She went to the", "choices": [" xkq", " park"], "answer": 1},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
CHOICE = """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
"""
REPLY = """
output_type: generate_until
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
"""


def test_without_lm_eval_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "sis_core.workbench.harness", raising=False)
    done = CliRunner().invoke(command, ["any.gguf", "--tasks", "hellaswag"])
    assert isinstance(done.exception, SourceError)
    assert "pip install 'sis-core[tasks]'" in str(done.exception)


def test_tasks_stand_alone() -> None:
    done = CliRunner().invoke(command, ["any.gguf", "--tasks", "hellaswag", "--text", "a.txt"])
    assert done.exit_code == 2
    assert "--tasks stands alone" in done.output


@pytest.fixture(scope="module")
def harness() -> Any:
    pytest.importorskip("lm_eval", reason="the package lm-eval is not installed")
    from sis_core.workbench import harness

    return harness


@pytest.fixture(scope="module")
def model() -> Any:
    with load(backend="numpy", kv_type="f32") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks in YAML, whose data lie beside them."""
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, kind in (("hens", CHOICE), ("tale", REPLY)):
        text = TASK.format(name=name, data=data, cache=tmp_path / "cache")
        (tasks / f"{name}.yaml").write_text(text + kind)
    return tasks


def asked(kind: str, arguments: list[Any]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=each, idx=i) for i, each in enumerate(arguments)]


def by_hand(model: LanguageModel, ids: list[int], n_scored: int) -> tuple[float, bool]:
    rows, scored = log_softmax(model.logits(ids[:-1]))[-n_scored:], ids[-n_scored:]
    likeliest = all(row.argmax() == token for row, token in zip(rows, scored, strict=True))
    return float(sum(row[token] for row, token in zip(rows, scored, strict=True))), likeliest


@pytest.mark.full
def test_log_likelihoods(harness: Any, model: LanguageModel) -> None:
    """Whatever the questions before have left in the cache."""
    found = harness.HarnessModel(model).loglikelihood(asked("loglikelihood", PAIRS))
    for (context, rest), (value, likeliest) in zip(PAIRS, found, strict=True):
        before = model.tokenize(context.rstrip())  # lm-eval gives spaces to what follows
        scored = model.tokenize(context + rest)[len(before) :]
        wanted = by_hand(model, [*before, *scored], len(scored))
        assert (value, likeliest) == (pytest.approx(wanted[0], abs=1e-4), wanted[1])


@pytest.mark.full
def test_what_is_too_long_loses_its_beginning(harness: Any) -> None:
    with load(backend="numpy", kv_type="f32", n_ctx=32) as short:
        ids = short.tokenize(TEXT * 3)
        (found,) = harness.HarnessModel(short)._loglikelihood_tokens([("", ids[:60], ids[60:70])])
        assert found[0] == pytest.approx(by_hand(short, ids[37:70], 10)[0], abs=1e-4)
        with pytest.raises(ModelError, match="40 tokens are to be scored at once, and the context has 32"):
            harness.HarnessModel(short)._loglikelihood_tokens([("", ids[:1], ids[1:41])])
        (whole,) = harness.HarnessModel(short).loglikelihood_rolling(asked("loglikelihood_rolling", [(TEXT,)]))
        ids = [short.tokenizer.bos, *short.tokenize(TEXT, add_special=False)]
        parts = [ids[at : at + 33] for at in range(0, len(ids) - 1, 32)]
        if len(parts[-1]) < 33:
            parts[-1], n_last = ids[-33:], len(parts[-1]) - 1
        values = [by_hand(short, part, 32)[0] for part in parts[:-1]] + [by_hand(short, parts[-1], n_last)[0]]
        assert whole == pytest.approx(sum(values), abs=1e-3)


@pytest.mark.full
def test_replies(harness: Any, model: LanguageModel) -> None:
    contexts = ["Once upon a time", "The hen was", TEXT]
    wanted = [model.generate_batch([c], sampler="greedy", max_tokens=12, stop=["."])[0].text for c in contexts]
    given = {"until": ["."], "max_gen_toks": 12}
    assert harness.HarnessModel(model).generate_until(asked("generate_until", [(c, given) for c in contexts])) == wanted


@pytest.mark.full
def test_a_folder_of_tasks(harness: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there is no repository, of which git would complain."""
    monkeypatch.chdir(tmp_path)
    model = load()
    path = str(model.path)
    model.close()
    done = sis("eval", path, "--tasks", str(folder), "--json")
    assert "git" not in done.stderr
    told = json.loads(done.stdout)
    scores = {(score["task"], score["metric"]): score for score in told["tasks"]}
    assert scores["hens", "acc"]["value"] == 1
    assert scores["hens", "acc"]["n"] == 2
    assert scores["hens", "acc"]["higher_is_better"]
    assert scores["tale", "exact_match"]["value"] == 0
    table = sis("eval", path, "--tasks", str(folder / "hens.yaml"), "--limit", "1").stdout
    assert table.splitlines()[1].split("\t") == ["hens", "none", "0", "1", "acc", "↑", "1", "–"]


@pytest.mark.full
def test_what_cannot_be_run(harness: Any, model: LanguageModel, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no task 'helaswag' \(did you mean 'hellaswag'"):
        harness.run_tasks(model, ["helaswag"])
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(SourceError, match="cannot be set up"):
        harness.run_tasks(model, [str(folder)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no task in YAML"):
        harness.run_tasks(model, [str(tmp_path / "empty")])
