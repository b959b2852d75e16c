"""What Python is given is refused as the command line refuses it: by an error of ours that names the option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
import sis_samplers
import sis_tokenizers

from sis_core.errors import SamplerError, SisError, SourceError, TokenizerError
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Request
from sis_core.texts.session import Session

REGISTRY = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
NO_NUMBER = [b"1", "1", 1.0, float("nan"), [1], True, object(), np.zeros(2)]
NO_FLAG = ["no", 0, 1, [], np.zeros(2)]
NO_TEXT = [b"a", 1, 1.5, True, ["a"], object()]
NO_IDS = [b"abc", bytearray(b"a"), 5, 1.5, True, [1.5], ["a"], [None], [True], [b"a"], [[1]], np.array([1.5]), object()]
REQUEST: dict[str, list[Any]] = {
    "prompt": [None, *NO_IDS],
    "samplers": [5, True, ["top-k"], [5], object()],
    "max_tokens": [0, -1, *NO_NUMBER],
    "stop": [None, b"a", 5, [5], [b"a"], "", ["a", ""]],
    "seed": [-1, 2**64, *NO_NUMBER],
    "logprobs": [-1, *NO_NUMBER],
    "prompt_logprobs": [-1, *NO_NUMBER],
    "want": ["logit", None, 1, ["text"], np.zeros(2)],
    "context": ["shfit", "", 1, ["shift"], "sinks:0", "sinks:-1", "sinks:x", "sinks:"],
    "n_keep": [None, -1, *NO_NUMBER],
    "ignore_end": [None, *NO_FLAG],
    "spell_special": [None, *NO_FLAG],
    "adapter": NO_TEXT,
    "priority": [None, *NO_NUMBER],
    "salt": [None, *NO_TEXT],
}
ONLY_FROM_A_PERSON: dict[str, list[Any]] = {
    "sampler": [5, True, ["top-k"], [5], object()],
    "add_special": [None, *NO_FLAG],
    "parse_special": [None, *NO_FLAG],
}
LOAD: dict[str, list[Any]] = {
    "model": ["", b"a", 5, ["a"]],
    "backend": NO_TEXT,
    "n_ctx": [0, -5, *NO_NUMBER],
    "kv_type": [None, *NO_TEXT],
    "n_threads": [0, *NO_NUMBER],
    "pack": NO_FLAG,
    "gradual": NO_FLAG,
    "pin": [None, *NO_FLAG],
    "batch_invariant": [None, *NO_FLAG],
    "on_error": ["degarde", None, 1, ["strict"]],
    "speculate": ["", *NO_TEXT],
    "stages": [0, -1, *NO_NUMBER],
    "context": [None, "", "sinks:0", *NO_TEXT],
    "ignore_keys": [None, 5, [5], b"a", ""],
    "memory_limit": [-1, *NO_NUMBER],
    "layers": [5, [0], "0"],
    "progress": [5, "bar"],
    "registry": [5, "", []],
}
CALLS: dict[str, tuple[Callable[[LanguageModel, Any], Any], list[Any]]] = {
    "text": (lambda m, v: m.tokenize(v), [None, *NO_TEXT]),
    "tokens": (lambda m, v: m.detokenize(v), [None, "abc", *NO_IDS]),
    "prompts": (lambda m, v: m.generate_batch(v), [None, "one", b"one", 5]),
    "texts": (lambda m, v: m.embed(v), [None, "one", b"one", 5]),
    "pooling": (lambda m, v: m.embed(["a"], pooling=v), ["avg", 1, ["mean"]]),
    "requests": (lambda m, v: list(m.stream(v)), [None, 5, "one", ["Once"], [None]]),
    "backend": (lambda m, v: m.with_backend(v), [None, 5, ["numpy"]]),
    "prompt_cache": (lambda m, v: m.conversation("none", prompt_cache=v), [5, b"a", ["folder"]]),
    "template": (lambda m, v: m.chat_format(v), [5, b"a", ["chatml"]]),
    "reuse": (lambda m, v: m.scheduler(reuse=v), [None, *NO_FLAG]),
    "stall": (lambda m, v: m.scheduler(stall=v), [-1, "1", True, float("nan"), [1]]),
    "max_tokens": (lambda m, v: m.scheduler(max_tokens=v), [0, *NO_NUMBER]),
    "n_ctx": (lambda m, v: m.session(n_ctx=v), NO_NUMBER),
    "on_error": (lambda m, v: Session(m, on_error=v), ["degarde", None, 5]),
    "request": (lambda m, v: _raised(m, v), [None, "Once", [1, 2]]),
}
IN_SESSION: dict[str, tuple[Callable[[Session, Any], Any], list[Any]]] = {
    "tokens": (lambda s, v: s.feed(v), [None, "abc", *NO_IDS]),
    "sequence": (lambda s, v: s.feed([1], v), [None, *NO_NUMBER]),
    "outputs": (lambda s, v: s.advance({0: [1]}, {0: v}), [None, "last", -1, 2]),
    "want": (lambda s, v: s.advance({0: [1]}, {0: 1}, want=v), [None, "text", 1]),
    "n": (lambda s, v: s.truncate(0, v), [None, *NO_NUMBER]),
    "target": (lambda s, v: s.fork(0, v), [None, *NO_NUMBER]),
}


def _raised(model: LanguageModel, request: Any) -> None:
    with model.scheduler() as scheduler:
        scheduler.add(request)
        (piece,) = scheduler.run()
    assert piece.error is not None
    raise piece.error


@pytest.fixture(scope="module")
def model(random_model: Path) -> Iterator[LanguageModel]:
    with load(random_model, backend="stub", registry=REGISTRY) as model:
        yield model


def refuse(name: str, values: list[Any], call: Callable[[Any], Any]) -> None:
    """Each value is an error of ours that begins with the option's name."""
    for value in values:
        with pytest.raises(SisError, match=rf"^{name}: "):
            call(value)


@pytest.mark.parametrize("name", REQUEST)
def test_requests(name: str) -> None:
    refuse(name, REQUEST[name], lambda value: Request(**{"prompt": [1, 2], name: value}))


@pytest.mark.parametrize("name", REQUEST | ONLY_FROM_A_PERSON)
def test_what_a_person_writes(name: str, model: LanguageModel) -> None:
    spelt = "samplers?" if name.startswith("sampler") else name
    values = (REQUEST | ONLY_FROM_A_PERSON)[name]
    refuse(spelt, values, lambda value: model.generate(**{"prompt": "Once", name: value}))


@pytest.mark.parametrize("name", LOAD)
def test_loading(name: str, random_model: Path) -> None:
    given = {"model": random_model, "backend": "stub", "registry": REGISTRY}
    refuse(name, LOAD[name], lambda value: load(**{**given, name: value}))


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, model: LanguageModel) -> None:
    call, values = CALLS[name]
    refuse(name, values, lambda value: call(model, value))


@pytest.mark.parametrize("name", IN_SESSION)
def test_sessions(name: str, model: LanguageModel) -> None:
    call, values = IN_SESSION[name]
    with model.session() as session:
        session.feed([1, 2, 3])
        refuse(name, values, lambda value: call(session, value))
        assert session.tokens() == [1, 2, 3]


def test_the_tables_are_whole() -> None:
    assert set(REQUEST) == set(Request.__init__.__annotations__) - {"return"}
    assert set(LOAD) | {"preset"} == set(load.__annotations__) - {"return"}


def test_messages(model: LanguageModel, random_model: Path) -> None:
    """What a few of them say, and that they are of the kind that one would catch."""
    with pytest.raises(
        SisError,
        match=r"^context: there is no way 'shfit' to go on \(did you mean 'shift'\?\)\. Give error, shift",
    ):
        model.generate("Once", context="shfit")
    with pytest.raises(TokenizerError, match=r"^prompt: is b'Once', but must be a text or token ids\. Give a list"):
        model.generate(b"Once")  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match=r"^prompt: element 1 is 'a', not a token id"):
        model.generate([1, "a"])  # type: ignore[list-item]
    with pytest.raises(SisError, match=r"^seed: is -1, but must be at least 0$"):
        model.generate("Once", seed=-1)
    with pytest.raises(SamplerError, match="'top-k' is no sampler"):
        model.generate("Once", sampler=["top-k"])
    with pytest.raises(SisError, match=r"^pack: is 'no', but must be True or False$"):
        load(random_model, pack="no")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="the model's name is empty"):
        load("")


def test_what_numpy_gives_is_taken(model: LanguageModel) -> None:
    ids = np.array(model.tokenize("Once"), np.int64)
    given: dict[str, Any] = {"max_tokens": np.int32(4), "seed": np.uint64(2**64 - 1), "ignore_end": np.bool_(True)}
    expected = list(model.generate(ids.tolist(), max_tokens=4, seed=2**64 - 1, ignore_end=True))
    assert list(model.generate(ids, **given)) == expected
    assert list(model.generate(list(ids), **given)) == expected
    assert model.detokenize(ids) == "Once"
