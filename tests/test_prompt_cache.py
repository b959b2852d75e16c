"""Prompts that are kept on disk: found by their beginning, whole or not used, bounded, and read once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scripted import Says
from tiny_models import EOS, metadata, write_model

from sis_core.cache.pages import PAGE_SIZE
from sis_core.cli.main import group
from sis_core.errors import BackendError, ContextError, SisError
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.prompt_cache import PromptCache

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = metadata(tokenizer__chat_template=TEMPLATE, llama__context_length=1024)
    return write_model(tmp_path_factory.mktemp("model") / "chat.gguf", values)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[LanguageModel]:
    with load(path, speculate="off") as model:
        yield model


@pytest.fixture
def cache(tmp_path: Path) -> PromptCache:
    return PromptCache(tmp_path / "kept")


def keep(cache: PromptCache, model: LanguageModel, tokens: list[int]) -> None:
    with model.session() as session:
        session.feed(tokens)
        cache.write(model, tokens, session.save())


def test_a_conversation_goes_on_after_a_restart(path: Path, cache: PromptCache) -> None:
    messages: list[Any] = [{"role": "user", "content": "the sea " * 8}]
    with load(path, speculate="off") as model, model.conversation(prompt_cache=cache.folder) as conversation:
        messages.append(conversation.reply(messages, samplers=[Says(tuple(b"he he the"))]).message)
        known = conversation.ids
    messages.append({"role": "user", "content": "more"})
    with load(path, speculate="off") as model, model.conversation(prompt_cache=cache.folder) as conversation:
        prompt = conversation.tokens(messages)
        assert prompt[: len(known)] == list(known), "the ids that were written, which the tokenizer would not give"
        reply = conversation.reply(messages, sampler="greedy", max_tokens=9, ignore_end=True)
        assert reply.usage is not None
        assert reply.usage.n_cached == len(known) - 1
        assert conversation.stats.rows == len(prompt) - len(known) + 1 + 8
        alone = model.generate(prompt, sampler="greedy", max_tokens=9, ignore_end=True, spell_special=True)
        assert reply.message["content"] == "".join(alone)
    (kept,) = cache.list()
    assert kept.n_tokens == len(prompt) + 8, "the longer one has taken the place of its beginning"
    assert kept.model == "chat.gguf"


def test_the_longest_beginning_is_found(model: LanguageModel, cache: PromptCache) -> None:
    first = list(range(PAGE_SIZE))
    for rest in ([1, 2, 3], [1, 9], [*range(60), 1]):
        keep(cache, model, first + rest)
    assert len(cache.list()) == 3
    for tokens, n in (([1, 2, 3, 4], PAGE_SIZE + 3), ([1, 9, 9], PAGE_SIZE + 2), ([*range(60)], PAGE_SIZE + 61)):
        found = cache.find(model, first + tokens)
        assert found is not None
        assert len(cache.read(found)[0]) == n
    assert cache.find(model, [5, *first]) is None
    assert cache.find(model, first[:-1]) is None
    keep(cache, model, [7] * (PAGE_SIZE - 1))
    keep(cache, model, [*first, 1, 2])
    assert len(cache.list()) == 3, "neither what is too short nor what is known"


def test_only_the_same_model_loaded_the_same_way_finds_it(model: LanguageModel, path: Path, cache: PromptCache) -> None:
    tokens = list(range(PAGE_SIZE + 3))
    keep(cache, model, tokens)
    assert cache.find(model, tokens) is not None
    for options in ({"kv_type": "q8_0"}, {"backend": "numpy"}, {"n_ctx": 512}):
        with load(path, **options) as other:  # type: ignore[arg-type]
            same = (other.options.kv_type, other.backend, other.config) == (
                model.options.kv_type, model.backend, model.config
            )  # fmt: skip
            assert (cache.find(other, tokens) is not None) == same
    trained = path.with_name("trained.gguf")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    trained.write_bytes(data)
    with load(trained) as other:
        assert cache.find(other, tokens) is None


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "longer", "text"])
def test_a_damaged_file_is_not_used(
    model: LanguageModel, cache: PromptCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    messages: list[Any] = [{"role": "user", "content": "the sea " * 8}]
    with model.conversation(prompt_cache=cache) as conversation:
        conversation.reply(messages, samplers=[Says(tuple(b"hey"))])
    (kept,) = cache.list()
    data = bytearray(kept.path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"cut": data[:-50], "bit": data, "empty": b"", "longer": data + b"x", "text": b"hello"}[damage]
    kept.path.write_bytes(damaged)
    with model.conversation(prompt_cache=cache) as conversation:
        usage = conversation.reply(messages, samplers=[Says(tuple(b"hey"))]).usage
        assert usage is not None
        assert usage.n_cached == 0
        assert conversation.stats.rows == usage.n_prompt + 3
    assert ("cannot be used" in caplog.text) == (damage in ("cut", "bit", "longer"))


def test_the_least_recently_used_go_first(model: LanguageModel, cache: PromptCache) -> None:
    texts = [[i] * (PAGE_SIZE + 1) for i in range(4)]
    for i, tokens in enumerate(texts[:3]):
        keep(cache, model, tokens)
        found = cache.find(model, tokens)
        assert found is not None
        os.utime(found, (i, i))
    one = cache.list()[0].n_bytes
    oldest = cache.find(model, texts[0])
    assert oldest is not None
    for _ in cache.read(oldest)[1]:
        pass
    cache.max_bytes = 3 * one
    keep(cache, model, texts[3])
    assert [cache.find(model, tokens) is not None for tokens in texts] == [True, False, True, True]


def test_what_was_killed_leaves_nothing_that_is_used(path: Path, model: LanguageModel, cache: PromptCache) -> None:
    program = (
        "import os, signal, sys, sis_core\n"
        "from sis_core.texts.prompt_cache import PromptCache\n"
        "def dying():\n    yield b'x' * 100000\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "with sis_core.load(sys.argv[1]) as model:\n    PromptCache(sys.argv[2]).write(model, range(40), dying())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path, cache.folder], check=False, timeout=120)
    assert done.returncode == -9
    assert cache.list() == []
    (left,) = cache.folder.glob("*/.*")
    os.utime(left, (0, 0))
    keep(cache, model, list(range(40)))
    assert not left.exists()
    assert [kept.n_tokens for kept in cache.list()] == [40]


def test_it_is_private_and_can_be_listed_and_emptied(model: LanguageModel, cache: PromptCache) -> None:
    keep(cache, model, list(range(40)))
    (kept,) = cache.list()
    assert [stat.S_IMODE(p.stat().st_mode) for p in (kept.path, cache.folder)] == [0o600, 0o700]
    done = CliRunner().invoke(group, ["cache", str(cache.folder)], catch_exceptions=False)
    assert done.output.splitlines()[1].startswith("chat.gguf\t40\t")
    done = CliRunner().invoke(group, ["cache", str(cache.folder), "--empty"], catch_exceptions=False)
    assert done.output == "1 deleted\n"
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SisError, match=r"prompt cache .*file: cannot be written"):
        keep(PromptCache(tmp_path / "file"), model, list(range(40)))


def test_a_session_saves_and_loads(model: LanguageModel) -> None:
    with model.session() as session, model.session() as other:
        logits = session.feed(range(50))
        pages = list(session.save())
        other.load(range(50), pages, 3)
        assert other.tokens(3) == list(range(50))
        assert (other.feed([EOS], 3) == session.feed([EOS])).all()
        assert logits.shape[0] == 1
        with pytest.raises(BackendError, match="50 tokens were saved, not 49"):
            other.load(range(49), pages, 3)
        assert other.tokens(3) == []
        with pytest.raises(ContextError):
            other.load([1] * 2000, pages, 3)


@pytest.mark.parametrize("n", [1, 2])
def test_generate_reads_a_prompt_once(path: Path, cache: PromptCache, n: int) -> None:
    prompts = [f"The {'cat ' * 20}{i}" for i in range(n)]
    command = ["generate", "-m", str(path), "--seed", "1", "-n", "5", *prompts]
    plain = CliRunner().invoke(group, command, catch_exceptions=False).output
    for _ in range(2):
        done = CliRunner().invoke(group, [*command, "--prompt-cache", str(cache.folder)], catch_exceptions=False)
        assert sorted(done.output.splitlines()) == sorted(plain.splitlines())
    assert len(cache.list()) == n


def test_what_is_generated_again_begins_where_the_prompt_is_known(model: LanguageModel, cache: PromptCache) -> None:
    request = model.request([*range(1, 50)], sampler="greedy", max_tokens=5, ignore_end=True)
    first = list(model.stream([request], cache))
    again = list(model.stream([request], cache))
    assert [piece.token for piece in first] == [piece.token for piece in again]
    assert (first[-1].n_cached, again[-1].n_cached) == (0, 48)
