"""`sis new`: what it writes installs, passes its own test, and is clean to linters and types; what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_examples import installer

from sis_core.errors import PluginError
from sis_core.workbench.scaffold import KINDS, Names, write_plugin

ROOT = Path(__file__).parent.parent
RECORDS = {
    "quant": ("quant_formats", "MY_QUANT"),
    "sampler": ("samplers", "my-sampler"),
    "drafter": ("drafters", "my-drafter"),
    "backend": ("backends", "my-backend"),
    "architecture": ("architectures", "my-architecture"),
    "tokenizer": ("tokenizers", "my-tokenizer"),
    "source": ("sources", "my-source"),
    "chat-format": ("chat_formats", "my-chat-format"),
    "command": ("commands", "my-command"),
}


def run(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **env}
    )


def sis(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "sis_core", *args, cwd=cwd)


def _module(kind: str) -> str:
    return f"my_{kind.replace('-', '_')}"


# In the full run: those whose kit is a single check, which its own tests try.
ALIKE = ("source", "command", "tokenizer", "chat-format", "drafter")
RUN = [pytest.param(kind, marks=pytest.mark.full) if kind in ALIKE else kind for kind in KINDS]


@pytest.mark.parametrize("kind", RUN)
def test_a_new_plugin_installs_and_passes_its_test(kind: str, tmp_path: Path) -> None:
    name = f"my-{kind}"
    written = sis("new", kind, name, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert written.stdout.endswith(f"  pip install -e {name} pytest\n  python -m pytest {name}\n")
    folder, site = tmp_path / name, tmp_path / "site"
    built = run(*installer(), "--no-deps", "--target", site, folder, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (folder / f"{_module(kind)}.py").unlink()  # so that the installed one is tested
    listed = run(sys.executable, "-m", "sis_core", "plugins", "--json", cwd=tmp_path, PYTHONPATH=str(site))
    row = next(row for row in map(json.loads, listed.stdout.splitlines()) if row["name"] == name)
    records, record = RECORDS[kind]
    assert (row["problem"], row["offers"]) == (None, {records: [record]})
    done = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder,
        cwd=tmp_path, PYTHONPATH=str(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_clean(kind: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path / f"my-{kind}"
    paths = write_plugin(kind, Names.of(f"my-{kind}"), folder)
    assert not [path for path in paths if "$" in path.read_text("utf-8").replace("\n$ ", "")]
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["sis"] == {f"my-{kind}": _module(kind)}
    pytest.importorskip("ruff")
    pytest.importorskip("mypy")
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]["select"]
    ruff = (sys.executable, "-m", "ruff")
    linted = run(*ruff, "check", "--isolated", "--line-length", 120, "--select", ",".join(rules), ".", cwd=folder)
    assert linted.returncode == 0, linted.stdout
    formatted = run(*ruff, "format", "--isolated", "--line-length", 120, "--diff", ".", cwd=folder)
    assert formatted.returncode == 0, formatted.stdout
    cache = tmp_path_factory.getbasetemp() / "mypy"
    typed = run(
        sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, f"{_module(kind)}.py", "tests", cwd=folder
    )
    assert typed.returncode == 0, typed.stdout


@pytest.mark.parametrize("text", ["my-format", "my_format", "MyFormat", "MY_FORMAT", "My Format"])
def test_a_name_in_any_spelling(text: str) -> None:
    assert Names.of(text) == Names("my-format", "my_format", "MyFormat", "MY_FORMAT")


@pytest.mark.parametrize("text", ["", "-", "4bit", "a--", "mein-maß", "a/b", "../x", "a" * 61, "-v", "a.b/c"])
def test_a_name_that_no_module_can_have(text: str) -> None:
    with pytest.raises(PluginError, match=r"cannot be the name of a plugin\. Use letters"):
        Names.of(text)


@pytest.mark.parametrize("text", ["numpy", "class", "json", "sis-core", "sis-q8-0"])
def test_a_name_that_python_has_already(text: str) -> None:
    if text == "sis-q8-0":
        pytest.importorskip("sis_q8_0")
    with pytest.raises(PluginError, match=r"there is a Python module .* already.*Choose another name, such as my-"):
        Names.of(text)


def test_a_name_that_a_plugin_has_already(tmp_path: Path) -> None:
    for kind, name, owner in (("sampler", "top-k", "samplers"), ("quant", "q8-0", "q8_0"), ("source", "tiny", "tiny")):
        refused = sis("new", kind, name, cwd=tmp_path)
        assert refused.returncode == 1
        assert f"already, in the plugin '{owner}'. Choose another name, such as my-{name}" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("a year of work")
    refused = sis("new", "sampler", "mine", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (
        1, "sis: mine: exists already. Choose another name, or another place with --into DIR\n",
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]
    assert sis("new", "sampler", "mine", "--into", "a/b", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a" / "b" / "mine.py").is_file()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = sis("new", "sampler", "mine", "--into", tmp_path / "file" / "mine", cwd=tmp_path)
    assert refused.returncode == 1
    assert "cannot be made" in refused.stderr


def test_an_unknown_kind_is_a_usage_error(tmp_path: Path) -> None:
    refused = sis("new", "kernel", "mine", cwd=tmp_path)
    assert refused.returncode == 2
    assert "quant" in refused.stderr
