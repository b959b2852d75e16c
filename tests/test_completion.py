"""What a shell offers while a command is typed, asked as a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sis_core.cli.completion import completing


def offered(words: str, **env: str) -> list[tuple[str, str]]:
    """(kind, value) of what is offered for the last of the words."""
    count = len(words.split(" ")) - 1
    asked = os.environ | {"_SIS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)} | env
    code = "from sis_core.cli import main; main()"
    command = [sys.executable, "-c", f"import sys; sys.argv = ['sis']; {code}"]
    done = subprocess.run(command, env=asked, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr
    pairs = [line.partition(",") for line in done.stdout.splitlines()]
    return [(kind, value) for kind, _, value in pairs]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("sis quan", "quantize"),
        ("sis generate --sampler top", "top-p"),
        ("sis generate --backend nu", "numpy"),
        ("sis quantize --to q4_k", "q4_k_m"),
        ("sis pull --to q4_k", "q4_k_m"),
        ("sis rm ti", "tiny"),
        ("sis verify ti", "tiny"),
        ("sis generate --max", "--max-tokens"),
    ],
)
def test_names(words: str, wanted: str) -> None:
    found = offered(words)
    assert ("plain", wanted) in found
    assert all(value.startswith(words.rpartition(" ")[2]) for _, value in found)


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    """A store with ``tiny:latest``."""
    store = tmp_path / "ollama"
    (store / "manifests/registry.ollama.ai/library/tiny").mkdir(parents=True)
    (store / "blobs").mkdir()
    digest = "0" * 64
    (store / "blobs" / f"sha256-{digest}").write_bytes(b"GGUF")
    layer = f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{digest}"}}'
    (store / "manifests/registry.ollama.ai/library/tiny/latest").write_text(f'{{"layers": [{layer}]}}')
    return store


def test_models_that_are_here(ollama: Path) -> None:
    assert ("plain", "ollama://tiny:latest") in offered("sis inspect -m olla", OLLAMA_MODELS=str(ollama))
    assert ("file", "./models/ti") in offered("sis inspect -m ./models/ti", OLLAMA_MODELS=str(ollama))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("sis inspect -m olla", "ollama://tiny:latest"),
        ("sis inspect -m ollama://ti", "//tiny:latest"),
        ("sis inspect --model=ollama://tiny:la", "latest"),
    ],
)
def test_bash_takes_words_apart_at_colons(ollama: Path, tmp_path: Path, line: str, wanted: str) -> None:
    """What bash puts in the place of its last word."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "sis"
    program.write_text(f"#!{sys.executable}\nfrom sis_core.cli import main\nmain()\n")
    program.chmod(0o755)
    script = (
        'eval "$(_SIS_COMPLETE=bash_source sis)"; COMP_POINT=${#COMP_LINE}; _sis_completion sis; echo "${COMPREPLY[*]}"'
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COMP_LINE": line, "OLLAMA_MODELS": str(ollama)}
    done = subprocess.run(
        [bash, "--norc", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert wanted in done.stdout.split()


def test_an_error_offers_nothing() -> None:
    import click

    ctx = click.Context(click.Command("sis"))

    def broken(registry: object) -> list[str]:
        raise RuntimeError("no")

    assert completing(broken)(ctx, click.Option(["-m"]), "") == []
