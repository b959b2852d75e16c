"""The Codex program in a loop with a tool: it asks, runs what it is told to, and asks again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from tiny_models import metadata, tensors, write_model

from sis_core import load
from sis_core.cache.pages import PAGE_SIZE

HERE = Path(__file__).parent
N_CTX = 32768
CONFIG = """
model = "tiny"
model_provider = "sis"
[model_providers.sis]
name = "sis"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
"""


@pytest.fixture(scope="module")
def program() -> Path:
    """The binary."""
    spec = find_spec("codex_cli_bin")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package openai-codex-cli-bin is not installed")
    return Path(spec.submodule_search_locations[0]) / "bin" / "codex"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small random model with SmolLM2's vocabulary and room for an agent."""
    with load(real_models.real(real_models.SMOLLM2), backend="stub") as model:
        vocabulary = {key: value for key, value in model.metadata.items() if key.startswith("tokenizer.")}
        n_vocab = model.config.n_vocab
    draw, weights = np.random.default_rng(0), tensors()
    for name in ("token_embd.weight", "output.weight"):
        weights[name] = draw.standard_normal((n_vocab, 32)).astype(np.float32)
    values = metadata(llama__context_length=N_CTX) | vocabulary
    return write_model(tmp_path / "agent.gguf", values, weights)


@pytest.fixture
def agent(serve: Any, file: Path) -> Iterator[Any]:
    # SmolLM2's own cannot express tools
    template = HERE.parents[1] / "chat" / "tests" / "templates" / "tagged_json.jinja"
    with serve(path=file, plugin=HERE / "agent.py", template=str(template), cache_tokens=2 * N_CTX) as server:
        yield server


@pytest.mark.full
def test_a_loop_with_a_tool(program: Path, agent: Any, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(CONFIG.format(port=agent.port))
    command = [str(program), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    done = subprocess.run(
        [*command, "How many hens are there? Write it down."],
        cwd=work, env=os.environ | {"CODEX_HOME": str(home)}, capture_output=True, text=True, timeout=900,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (work / "hens.txt").read_text() == "two hens"
    assert "There are two hens." in done.stdout
    counts, stats = agent.served.engine.counts, agent.served.engine._scheduler.session.stats
    assert counts.requests >= 2
    assert counts.failed == 0
    first = counts.prompt_tokens - counts.cached_tokens
    assert stats.rows < first + 20 * PAGE_SIZE
    assert counts.cached_tokens > 0.4 * counts.prompt_tokens  # the second request reads only what is new
