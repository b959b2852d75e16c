"""`check_tokenizer` passes right tokenizers, and names the fault of each of many wrong ones."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sis_tokenizers
import small_vocabularies

from sis_core.errors import TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.hookspecs import hookimpl
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.testing import check_tokenizer, write_model
from sis_core.tokenizer import Tokenizer, TokenizerFactory

SPEC = importlib.util.spec_from_file_location(
    "sis_rwkv_world", Path(__file__).parent.parent / "examples/tokenizer_plugin/sis_rwkv_world.py"
)
assert SPEC
assert SPEC.loader
RIGHT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(RIGHT)
World: Any = RIGHT.World
RAW = [*(bytes([byte]) for byte in range(256)), b" wren", "漢".encode() + b"\xe5"]
METADATA: dict[str, Any] = {
    "tokenizer.ggml.model": "rwkv",
    "tokenizer.ggml.tokens": ["<s>", "</s>", *(repr(raw)[2:-1] for raw in RAW)],
    "tokenizer.ggml.token_type": [3, 3] + [1] * len(RAW),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}


def check(build: Callable[[Mapping[str, Any]], Tokenizer], **options: Any) -> None:
    check_tokenizer(TokenizerFactory("rwkv", build), METADATA, **options)


def test_right_tokenizers_pass() -> None:
    check(World)
    factories = {factory.model: factory for factory in sis_tokenizers.sis_register_tokenizers()}
    check_tokenizer(factories["llama"], small_vocabularies.sentencepiece())
    check_tokenizer(factories["gpt2"], small_vocabularies.byte_level())


class AsciiOnly(World):
    """Has tokens for some characters only."""

    def _longest(self, text: str) -> list[int]:
        if not text.isascii():
            raise RIGHT.TokenizerError("has no such character", where="prompt")
        return super()._longest(text)  # type: ignore[no-any-return]


class SmallLetters(World):
    def _longest(self, text: str) -> list[int]:
        return super()._longest("".join(c.lower() if len(c.lower()) == 1 else c for c in text))  # type: ignore[no-any-return]


def test_a_tokenizer_that_loses_something_on_purpose() -> None:
    for build in (AsciiOnly, SmallLetters):
        check(build, lossless=False)
    with pytest.raises(
        AssertionError, match=r"cannot encode .* has no tokens for some bytes says so: .*lossless=False"
    ):
        check(AsciiOnly)
    with pytest.raises(AssertionError, match=r"'Once upon a time, a wren sang.' comes back as 'once upon"):
        check(SmallLetters)


def wrong(**methods: Any) -> type:
    """The right tokenizer with some methods in place of its own."""
    return type("Wrong", (World,), methods)


def changed(**attributes: Any) -> Callable[[Mapping[str, Any]], Tokenizer]:
    """The right tokenizer with other attributes."""

    def build(metadata: Mapping[str, Any]) -> Tokenizer:
        made: Tokenizer = World(metadata)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    return build


def decodes_characters(self: Any, tokens: Sequence[int], *, skip_special: bool = True) -> str:
    return "".join(self.token_bytes(t, skip_special=skip_special).decode("utf-8", "replace") for t in tokens)


def remembers(self: Any, text: str, **options: bool) -> list[int]:
    """Bytes alone, once a long text has come by."""
    self.longest = 1 if len(text) > 1000 else self.longest
    return World.encode(self, text, **options)  # type: ignore[no-any-return]


def spelt(self: Any, token: int) -> Any:
    return World.token_text(self, token) if token in self.hidden else self.spellings[token]


def unchecked(self: Any, token: int, *, skip_special: bool = True) -> bytes:
    return b"" if skip_special and token in self.hidden else self.raw[token]  # type: ignore[no-any-return]


def parses_all(self: Any, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
    return World.encode(self, text, parse_special=True)  # type: ignore[no-any-return]


def parses_none(self: Any, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
    return World.encode(self, text)  # type: ignore[no-any-return]


def shows_control(self: Any, token: int, *, skip_special: bool = True) -> bytes:
    return World.token_bytes(self, token, skip_special=False)  # type: ignore[no-any-return]


def ignores_surrogates(self: Any, text: str) -> list[int]:
    return World._longest(self, text.encode("utf-8", "replace").decode())  # type: ignore[no-any-return]


def unread_types(metadata: Mapping[str, Any]) -> Tokenizer:
    kinds = [metadata["tokenizer.ggml.token_type"][i] for i in range(len(metadata["tokenizer.ggml.tokens"]))]
    made: Tokenizer = World({**metadata, "tokenizer.ggml.token_type": kinds})
    return made


def assumes_text(metadata: Mapping[str, Any]) -> Tokenizer:
    made: Tokenizer = World({**metadata, "tokenizer.ggml.tokens": [t + "" for t in metadata["tokenizer.ggml.tokens"]]})
    return made


WRONG: list[tuple[str, Callable[[Mapping[str, Any]], Any], str]] = [
    ("text for bytes", assumes_text, r"build raised TypeError: .*; arrays of strings hold bytes"),
    ("no member", lambda metadata: object(), "has no n_vocab"),
    ("n_vocab", changed(n_vocab=7), r"n_vocab is 7, but the file has \d+ tokens"),
    ("bos outside", changed(bos=10**6), "bos is 1000000, neither None nor an id"),
    ("adds nothing", changed(add_bos=True, bos=None), "add_bos is true, but bos is None"),
    ("a set", changed(end_tokens={1}), "not a frozenset of ids"),
    ("eos no end", changed(end_tokens=frozenset()), "eos is not among end_tokens"),
    ("forgets bos", changed(add_bos=True), "add_special gives .*, not bos and eos"),
    (
        "arrays",
        wrong(encode=lambda self, text, **_: tuple(World.encode(self, text))),
        "returned tuple .*, not a list of int",
    ),
    ("characters", wrong(decode=decodes_characters), r"comes back as|but the bytes of its tokens say"),
    ("changes", wrong(encode=remembers), "gives other ids when it is built again, or when other texts came before"),
    ("text", wrong(token_text=spelt), r"token_text\(2\) is b'.*', not str"),
    (
        "negative ids",
        wrong(token_bytes=unchecked),
        r"decode of the id -1, where there are \d+ gave .*should be a Tokenizer",
    ),
    (
        "obeys users",
        wrong(encode=parses_all),
        r"reads '<s>' in a text as control token 0 although parse_special is false",
    ),
    (
        "reads no names",
        wrong(encode=parses_none),
        r"does not read '<s>' as control token 0 although parse_special is true",
    ),
    ("shows control", wrong(token_bytes=shows_control), r"control token 0 '<s>' adds b'<s>' .* although skip_special"),
    ("surrogates", wrong(_longest=ignores_surrogates), r"lone surrogate in .* gave .*, and should be a TokenizerError"),
    ("damage", unread_types, r"a file without tokenizer.ggml.tokens raised KeyError, not a TokenizerError"),
]


@pytest.mark.parametrize(("build", "fault"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_tokenizer_is_named(build: Callable[[Mapping[str, Any]], Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=f"^tokenizer rwkv: .*({fault})"):
        check(build)


class Naive:
    """What a beginner writes: no member of it raises what the contract says."""

    bos = eos = None
    end_tokens: frozenset[int] = frozenset()
    add_bos = add_eos = False

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.words = [word.decode() for word in metadata["tokenizer.ggml.tokens"]]
        self.n_vocab = len(self.words)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return [self.words.index(word) for word in text.split()]

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return " ".join(self.words[token] for token in tokens)

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        return self.words[token].encode()

    def token_text(self, token: int) -> str:
        return self.words[token]


class Incomplete(Naive):
    token_text = property()  # type: ignore[assignment]


def built(build: Callable[[Mapping[str, Any]], Any], folder: Path) -> Tokenizer:
    """The tokenizer of a model file, as sis builds it."""

    class Plugin:
        @hookimpl
        def sis_register_tokenizers(self) -> list[TokenizerFactory]:
            return [TokenizerFactory("naive", build)]

    values = {"tokenizer.ggml.model": "naive", "tokenizer.ggml.tokens": [f"w{i}" for i in range(260)]}
    with GGUFFile.open(write_model(folder / "m.gguf", values)) as file:
        return build_tokenizer(file, Registry.of(Plugin()))


def test_a_strangers_errors_become_ours_and_name_it(tmp_path: Path) -> None:
    made = built(Naive, tmp_path)
    assert made.encode("w1 w2") == [1, 2]
    assert made.words[3] == "w3"  # type: ignore[attr-defined]
    assert copy.copy(made).encode("w1") == [1]
    for run in (
        lambda: made.encode("x"),
        lambda: made.decode([999]),
        lambda: made.token_bytes(999),
        lambda: made.token_text(999),
    ):
        with pytest.raises(
            TokenizerError, match=r"the tokenizer 'naive' of the plugin Plugin-0 failed: (Value|Index)Error"
        ):
            run()
    with pytest.raises(TokenizerError, match=r"m\.gguf: the tokenizer 'naive' .* made something without token_text"):
        built(Incomplete, tmp_path)


def test_metadata_of_another_tokenizer() -> None:
    with pytest.raises(AssertionError, match="answers to 'other', but the metadata say 'rwkv'"):
        check_tokenizer(TokenizerFactory("other", World), METADATA)
