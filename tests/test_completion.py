"""What a shell offers while a command is typed, asked as a shell asks."""

from __future__ import annotations

import os
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


def test_models_that_are_here(tmp_path: Path) -> None:
    store = tmp_path / "ollama"
    (store / "manifests/registry.ollama.ai/library/tiny").mkdir(parents=True)
    (store / "blobs").mkdir()
    digest = "0" * 64
    (store / "blobs" / f"sha256-{digest}").write_bytes(b"GGUF")
    layer = f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{digest}"}}'
    (store / "manifests/registry.ollama.ai/library/tiny/latest").write_text(f'{{"layers": [{layer}]}}')
    assert ("plain", "ollama://tiny:latest") in offered("sis inspect -m olla", OLLAMA_MODELS=str(store))
    assert ("file", "./models/ti") in offered("sis inspect -m ./models/ti", OLLAMA_MODELS=str(store))


def test_an_error_offers_nothing() -> None:
    import click

    ctx = click.Context(click.Command("sis"))

    def broken(registry: object) -> list[str]:
        raise RuntimeError("no")

    assert completing(broken)(ctx, click.Option(["-m"]), "") == []
