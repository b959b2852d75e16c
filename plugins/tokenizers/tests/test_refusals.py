"""Every refusal about vocabularies and text: what is said, and where. One test a row; its id is the row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sis_llama
import sis_tokenizers
import small_vocabularies
import tiny_models
from attrs import evolve
from sis_tokenizers import text_tokenizer
from sis_tokenizers.bpe import BPETokenizer, build_bpe, read_merges
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS
from sis_tokenizers.special import Defaults, read_specials
from sis_tokenizers.spm import build_spm

from sis_core.errors import ContextError, PluginError, TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.texts.session import Session
from sis_core.tokenizer import TextStream

BYTES = tiny_models.byte_names()
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "token_type": None, "pre": "gpt-2"}
SPM = small_vocabularies.sentencepiece()
N_BPE = len(small_vocabularies.byte_level()["tokenizer.ggml.tokens"])
N_SPM = len(SPM["tokenizer.ggml.tokens"])


def bpe(**changes: Any) -> Callable[[], object]:
    return lambda: build_bpe(small_vocabularies.byte_level(**changes))


def spm(**changes: Any) -> Callable[[], object]:
    return lambda: build_spm(small_vocabularies.sentencepiece(**changes))


def tokens_of(name: str = "gpt-2") -> BPETokenizer:
    return build_bpe(small_vocabularies.byte_level(pre=name))


VOCABULARIES = [
    ("tokens missing", bpe(tokens=None), "tokenizer.ggml.tokens: the key is missing"),
    ("tokens empty", bpe(tokens=[]), "tokenizer.ggml.tokens: is empty"),
    ("tokens of the wrong type", bpe(tokens=["a", 7]), "tokenizer.ggml.tokens: element 1 is 7, a int, not a string"),
    ("tokens not an array", bpe(tokens="abc"), "tokenizer.ggml.tokens: is 'abc', not an array"),
    ("scores missing", spm(scores=None), "tokenizer.ggml.scores: the key is missing"),
    ("scores length", spm(scores=[0.0]), f"tokenizer.ggml.scores: has 1 elements for {N_SPM} tokens"),
    ("scores not finite", spm(scores=[0.0, float("nan")] * (N_SPM // 2) + [0.0] * (N_SPM % 2)), "of token 1 is nan"),
    ("scores of the wrong type", spm(scores=[b"1"] * N_SPM), "tokenizer.ggml.scores: element 0 is b'1', not a number"),
    ("token_type length", bpe(token_type=[1]), f"tokenizer.ggml.token_type: has 1 elements for {N_BPE} tokens"),
    (
        "token_type out of range",
        bpe(token_type=[1] * (N_BPE - 1) + [7]),
        f"of token {N_BPE - 1} is 7; types go from 0 to 6",
    ),
    ("token_type negative", bpe(token_type=[-1] * N_BPE), "the type of token 0 is -1"),
    ("byte token that is none", spm(token_type=[6] * N_SPM), "token 0 is a byte, but it is spelt '<unk>'"),
    ("merges missing", bpe(merges=None), "tokenizer.ggml.merges: the key is missing"),
    ("merge without two parts", bpe(merges=["h e", "xy"]), "tokenizer.ggml.merges: merge 1 is 'xy', not two tokens"),
    ("merge with three parts", bpe(merges=["t h e"]), "merge 0 is 't h e', not two tokens"),
    ("merges whose spaces add up", bpe(merges=["th", "h e x"]), "merge 0 is 'th', not two tokens"),
    ("merge that makes no token", bpe(merges=["z q"]), "merge 0, 'z q', makes 'zq', which is not a token"),
    (
        "duplicate tokens",
        bpe(tokens=[*BYTES, "a"], **NO_IDS),
        "tokenizer.ggml.tokens: the token 'a' stands there twice, as 97",
    ),
    (
        "bos beyond the vocabulary",
        bpe(bos_token_id=N_BPE),
        f"bos_token_id: the id {N_BPE} is outside the vocabulary of {N_BPE}",
    ),
    ("eos negative", bpe(eos_token_id=-1), "tokenizer.ggml.eos_token_id: the id -1 is outside the vocabulary"),
    ("eot beyond the vocabulary", bpe(eot_token_id=99999), "tokenizer.ggml.eot_token_id: the id 99999 is outside"),
    ("an id that is a string", bpe(bos_token_id="<s>"), "tokenizer.ggml.bos_token_id: is '<s>', not a token id"),
    (
        "add_bos without bos",
        bpe(bos_token_id=None, add_bos_token=True),
        "tokenizer.ggml.add_bos_token: .*bos_token_id is missing",
    ),
    (
        "add_eos without eos",
        bpe(eos_token_id=None, add_eos_token=True),
        "tokenizer.ggml.add_eos_token: .*eos_token_id is missing",
    ),
    ("add_bos not a bool", bpe(add_bos_token=1), "tokenizer.ggml.add_bos_token: is 1, not true or false"),
    (
        "unknown pre",
        bpe(pre="qwen0"),
        "tokenizer.ggml.pre: unknown pre-tokenizer 'qwen0': the text would be cut into other words",
    ),
    ("pre not a string", bpe(pre=3), "tokenizer.ggml.pre: is 3, not a name"),
    (
        "SPM with neither byte tokens nor an unknown one",
        spm(tokens=["<unk>", "<s>", "</s>", "a"], scores=[0.0] * 4, token_type=[2, 3, 3, 1], unknown_token_id=99999),
        "tokenizer.ggml.tokens: .* 256 are missing, the first is <0x00>",
    ),
    (
        "token longer than 64 KiB",
        bpe(tokens=[*BYTES, "x" * 70_000], merges=[], **NO_IDS),
        "token 256 has 70000 bytes, more than the 65536",
    ),
]


@pytest.mark.parametrize(("build", "message"), [row[1:] for row in VOCABULARIES], ids=[row[0] for row in VOCABULARIES])
def test_vocabulary(build: Callable[[], object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        build()


def test_tokens_of_a_file_that_are_numbers(tmp_path: Path) -> None:
    path = tiny_models.write_model(tmp_path / "numbers.gguf", tiny_models.metadata(tokenizer__ggml__tokens=[1, 2]), {})
    with (
        GGUFFile.open(path) as file,
        pytest.raises(TokenizerError, match=r"tokenizer.ggml.tokens: element 0 is 1, a int, not a string"),
    ):
        build_tokenizer(file, Registry.of(sis_tokenizers))


def test_unknown_tokenizer_model(tmp_path: Path) -> None:
    path = tiny_models.write_model(tmp_path / "bert.gguf", tiny_models.metadata(tokenizer__ggml__model="bert"), {})
    with (
        GGUFFile.open(path) as file,
        pytest.raises(PluginError, match=r"bert.gguf: .* tokenizer 'bert'\. Installed are: gemma4, gpt2, llama"),
    ):
        build_tokenizer(file, Registry.of(sis_tokenizers))


def test_known_tokenizer_model_without_its_plugin(random_model: Path) -> None:
    with GGUFFile.open(random_model) as file, pytest.raises(PluginError, match="`pip install sis-tokenizers`"):
        build_tokenizer(file, Registry.of(sis_llama))


def test_token_bytes_that_are_not_utf_8() -> None:
    metadata = small_vocabularies.sentencepiece()
    tokenizer = build_spm(
        metadata
        | {
            "tokenizer.ggml.tokens": [*metadata["tokenizer.ggml.tokens"], b"\xff\xfe"],
            "tokenizer.ggml.scores": [*metadata["tokenizer.ggml.scores"], 9.0],
            "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], 1],
        }
    )
    assert tokenizer.token_bytes(N_SPM) == b"\xff\xfe"
    assert tokenizer.decode([N_SPM]) == tokenizer.token_text(N_SPM) == "\ufffd\ufffd"
    assert tokenizer.decode(tokenizer.encode("the keeper")) == "the keeper"
    byte_level = build_bpe(small_vocabularies.byte_level(tokens=[*BYTES, b"\xff"], merges=[], **NO_IDS))
    assert byte_level.token_bytes(256) == b"\xff"
    assert byte_level.decode(byte_level.encode("the keeper")) == "the keeper"


@pytest.mark.parametrize("token", [N_BPE, -1], ids=["id out of range", "negative id"])
@pytest.mark.parametrize("method", ["decode", "token_bytes", "token_text"])
def test_decode(method: str, token: int) -> None:
    argument = [0, token] if method == "decode" else token
    with pytest.raises(TokenizerError, match=rf"decode: token {token} is outside the vocabulary of {N_BPE}"):
        getattr(tokens_of(), method)(argument)


def test_lone_surrogate_in_prompt() -> None:
    with pytest.raises(TokenizerError, match=r"prompt: character 2 is the lone surrogate U\+D83D"):
        tokens_of().encode("ab\ud83d")


def test_nul_in_prompt_works() -> None:
    tokenizer = tokens_of()
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"


def test_a_byte_that_no_token_has() -> None:
    tokenizer = build_bpe(small_vocabularies.byte_level(tokens=[*BYTES[:0xF0]], merges=[], **NO_IDS))
    with pytest.raises(TokenizerError, match=r"prompt: .* no token for the byte 0xF0 of the character '\\U0001f600'"):
        tokenizer.encode("a\U0001f600")


def test_prompt_over_n_ctx(random_model: Path) -> None:
    with (
        open_model(Model, random_model, Registry.of(sis_llama, sis_tokenizers), backend="numpy", n_ctx=16) as model,
        Session(model) as session,
        pytest.raises(ContextError, match=r"prompt: a text of 41 tokens does not fit into the context of 16"),
    ):
        session.check_room(len(model.tokenizer.encode("a" * 40)))


def test_prompt_over_byte_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert text_tokenizer.MAX_TEXT_BYTES == 16 * 1024 * 1024
    monkeypatch.setattr(text_tokenizer, "MAX_TEXT_BYTES", 10)
    assert len(tokens_of().encode("é" * 5)) > 0
    with pytest.raises(TokenizerError, match="prompt: a text of 12 bytes is over the limit of 10 bytes"):
        tokens_of().encode("é" * 6)


@pytest.mark.parametrize("build", [tokens_of, lambda: build_spm(SPM)], ids=["gpt2", "llama"])
def test_control_token_text_from_users(build: Callable[[], Any]) -> None:
    tokenizer = build()
    control = {tokenizer.bos, tokenizer.eos}
    text = "".join(tokenizer.token_text(token) for token in control)
    assert control.isdisjoint(tokenizer.encode(text, add_special=False))
    assert control == set(tokenizer.encode(text, add_special=False, parse_special=True))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", sorted({pre.patterns: name for name, pre in PRE_TOKENIZERS.items()}.values()))
def test_no_pre_tokenizer_backtracks(name: str) -> None:
    tokenizer = tokens_of(name)
    for unit in (" ", "a", "7", "\n", "\t ", "'", "é", "漢", "\u3000", "\u0301", " \n", "'s", ".a"):
        text = unit * 10_000 + "x"
        start = time.process_time()
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert time.process_time() - start < 2, unit


def test_a_pattern_that_backtracks_is_an_error_and_no_panic(capfd: pytest.CaptureFixture[str]) -> None:
    metadata = small_vocabularies.byte_level()
    tokenizer = tokens_of()
    pre = evolve(PRE_TOKENIZERS["gpt-2"], patterns=("(?:a|a|aa)+b",))
    merges = read_merges(metadata, tokenizer.vocabulary)
    slow = BPETokenizer(tokenizer.vocabulary, read_specials(metadata, tokenizer.vocabulary, Defaults()), merges, pre)
    with pytest.raises(TokenizerError, match=r"the text cannot be cut into tokens: .*retry-limit"):
        slow.encode("a" * 60)
    capfd.readouterr()  # the library reports its panic on the standard error stream


def test_stream_ending_inside_a_character() -> None:
    tokenizer = build_spm(SPM)
    stream = TextStream(tokenizer)
    tokens = tokenizer.encode("🦙", add_special=False)
    assert "".join(map(stream.push, tokens[:-1])) == " "
    assert stream.flush() == "\ufffd"


WARNED = [
    ("pruned merges", bpe(merges=["h e", "t qz"]), "merges: 1 of 2 make or join no token, and are left out"),
    ("unk beyond", spm(unknown_token_id=99999), "unknown_token_id is 99999, outside the"),
    ("pad beyond", spm(padding_token_id=99999), "padding_token_id is 99999, outside the"),
    ("no bos", bpe(bos_token_id=None, pre="llama-bpe"), "bos_token_id is missing: nothing is put before a text"),
]


@pytest.mark.parametrize(("build", "words"), [row[1:] for row in WARNED], ids=[row[0] for row in WARNED])
def test_what_no_text_needs_is_a_warning(
    build: Callable[[], Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = build()
    assert words in caplog.text
    assert tokenizer.decode(tokenizer.encode("the hen")) == "the hen"


def test_without_byte_tokens_unknown_characters_become_the_unknown_token(caplog: pytest.LogCaptureFixture) -> None:
    tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "b"]
    tokenizer: Any = spm(tokens=tokens, scores=[0.0] * 6, token_type=[2, 3, 3, 1, 1, 1])()
    assert "characters that it lacks become '<unk>'" in caplog.text
    assert tokenizer.encode("a\U0001f600b", add_special=False) == [3, 4, 0, 5]
