"""Tokenizers: ids of real and small vocabularies, the way back to text, special tokens, streams and long texts."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import real_models
import sis_tokenizers
import small_vocabularies
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sis_tokenizers import bpe, spm, text_bpe
from sis_tokenizers.bpe import BPETokenizer, build_bpe
from sis_tokenizers.chunks import BOUNDARY, NOWHERE, chunks
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS, TEXT_PRES
from sis_tokenizers.special import Defaults, Partition, read_specials
from sis_tokenizers.spm import SPMTokenizer, build_spm
from sis_tokenizers.text_bpe import TextBPETokenizer, build_text_bpe
from sis_tokenizers.vocabulary import Kind, Vocabulary

from sis_core.errors import SisError, TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry
from sis_core.tokenizer import TextStream, Tokenizer

GOLDENS = Path(__file__).parent / "goldens" / "tokenizers.json"
DISTINCT = (
    "default", "gpt-2", "llama-bpe", "dbrx", "qwen2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder",
    "deepseek-v3", "tekken", "gpt-4o", "qwen35", "minicpm5", "seed-coder", "youtu", "spark2_5", "bloom", "viking",
    "laguna", "chameleon", "tiny_aya", "superbpe", "afmoe", "exaone-moe",
)  # fmt: skip
VOCABULARIES = (
    "aquila", "baichuan", "bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2",
    "gpt-neox", "llama-bpe", "llama-spm", "mpt", "nomic-bert-moe", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
)  # fmt: skip
WITHOUT_PAIRS = ("aquila", "baichuan", "gpt-neox", "nomic-bert-moe")
REFUSED = {
    "bert-bge": "tokenizer 'bert'",
    "nomic-bert-moe": "tokenizer 't5'",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t'aeirst.,1290é漢▁Ġ"), max_size=60)


@cache
def small(kind: str) -> BPETokenizer | SPMTokenizer | TextBPETokenizer:
    """A small vocabulary: SentencePiece, of characters, or byte-level with the pre-tokenizer of that name."""
    if kind == "gemma4":
        return build_text_bpe(small_vocabularies.characters())
    if kind == "spm":
        return build_spm(small_vocabularies.sentencepiece())
    return build_bpe(small_vocabularies.byte_level(pre=kind))


def opened(path: Path) -> Tokenizer:
    with GGUFFile.open(path) as file:
        return build_tokenizer(file, Registry.of(sis_tokenizers))


def split_at(part: str | int, name: str, token: int) -> list[str | int]:
    """A piece of text cut at a name; ids stay as they are."""
    if isinstance(part, int):
        return [part]
    first, *rest = part.split(name)
    found: list[str | int] = [first, *(x for piece in rest for x in (token, piece))]
    return [piece for piece in found if piece != ""]


class TestIds:
    @pytest.mark.parametrize("kind", [*DISTINCT, "spm", "gemma4"])
    def test_goldens(self, kind: str) -> None:
        goldens = json.loads(GOLDENS.read_text("utf-8"))
        found = {text: small(kind).encode(text, add_special=False) for text in goldens[kind]}
        assert found == goldens[kind]

    def test_goldens_tell_the_pre_tokenizers_apart(self) -> None:
        goldens = json.loads(GOLDENS.read_text("utf-8"))
        assert len({json.dumps(goldens[kind]) for kind in DISTINCT}) == len(DISTINCT)

    @pytest.mark.full
    @pytest.mark.parametrize("name", VOCABULARIES)
    def test_llama_cpp_vocabularies(self, name: str) -> None:
        path = real_models.real(real_models.VOCABULARIES) / f"ggml-vocab-{name}.gguf"
        if name in REFUSED:
            with pytest.raises(SisError, match=REFUSED[name]):
                opened(path)
            return
        tokenizer = opened(path)
        if name in WITHOUT_PAIRS:
            text = "Hello, world! 123"
            assert tokenizer.decode(tokenizer.encode(text, add_special=False)).strip() == text
            return
        texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        wanted = Path(f"{path}.out").read_text().splitlines()
        for text, ids in zip(texts, wanted, strict=False):
            assert tokenizer.encode(text, add_special=False) == list(map(int, ids.split())), text
        assert len(wanted) > 40

    @pytest.mark.full
    def test_all_of_llama_cpps_vocabularies_are_tried(self) -> None:
        folder = real_models.real(real_models.VOCABULARIES)
        assert {path.stem.removeprefix("ggml-vocab-") for path in folder.glob("*.gguf")} == set(VOCABULARIES)
        assert not [name for name in WITHOUT_PAIRS if (folder / f"ggml-vocab-{name}.gguf.out").exists()]

    def test_stories(self, test_data: Path) -> None:
        tokenizer = opened(test_data / "models" / "stories260K.gguf")
        goldens = json.loads((test_data / "models" / "goldens.json").read_text("utf-8"))
        once = goldens['stories260K (f32) "Once upon a time"']
        assert tokenizer.encode("Once upon a time") == once["prompt_ids"]
        assert tokenizer.decode(once["greedy_ids"]) == once["text"]
        assert tokenizer.encode(once["text"]) == once["greedy_ids"]
        assert (tokenizer.n_vocab, tokenizer.bos, tokenizer.eos) == (512, 1, 2)

    def test_equal_scores_join_from_the_left(self) -> None:
        metadata = small_vocabularies.sentencepiece()
        tokens = [*metadata["tokenizer.ggml.tokens"][:259], "a", "aa", "▁"]
        tokenizer = build_spm(
            small_vocabularies.sentencepiece(
                tokens=tokens, scores=[0.0] * 262, token_type=[2, 3, 3] + [6] * 256 + [1] * 3
            )
        )
        assert [tokenizer.token_text(token) for token in tokenizer.encode("aaa", add_special=False)] == ["▁", "aa", "a"]

    def test_pieces_that_go_on_after_a_word(self) -> None:
        metadata = small_vocabularies.sentencepiece()
        tokens = [*metadata["tokenizer.ggml.tokens"], "of▁the"]
        tokenizer = build_spm(
            small_vocabularies.sentencepiece(
                tokens=tokens,
                scores=[*metadata["tokenizer.ggml.scores"], 1.0],
                token_type=[*metadata["tokenizer.ggml.token_type"], 1],
            )
        )
        whole = small("spm").encode("The keeper of the lighthouse 345", add_special=False)
        assert tokenizer.encode("The keeper of the lighthouse 345", add_special=False) == whole  # "of▁" joins no pair


class TestText:
    @settings(max_examples=60, deadline=None)
    @given(TEXTS, st.sampled_from(DISTINCT))
    @example("</s> it's 12345  \n\n x\r\n\0", "gpt-2")
    def test_byte_level_round_trip(self, text: str, pre: str) -> None:
        tokenizer = small(pre)
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @settings(max_examples=60, deadline=None)
    @given(TEXTS)
    @example("  two spaces")
    @example("\0")
    def test_sentencepiece_round_trip(self, text: str) -> None:
        tokenizer = small("spm")
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")

    @settings(max_examples=100, deadline=None)
    @given(st.data(), st.sampled_from(["spm", "gpt-2"]), st.booleans())
    def test_bytes_streams_and_decode_agree(self, data: st.DataObject, kind: str, skip: bool) -> None:
        tokenizer = small(kind)
        tokens = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1), max_size=20))
        raw = b"".join(tokenizer.token_bytes(token, skip_special=skip) for token in tokens)
        running = TextStream(tokenizer, skip_special=skip)
        assert "".join(map(running.push, tokens)) + running.flush() == raw.decode("utf-8", "replace")
        whole = TextStream(tokenizer, skip_special=skip, at_start=True)
        decoded = tokenizer.decode(tokens, skip_special=skip)
        assert "".join(map(whole.push, tokens)) + whole.flush() == decoded
        assert decoded == raw.removeprefix(b" " if kind == "spm" else b"").decode("utf-8", "replace")

    @pytest.mark.parametrize("kind", ["spm", "gpt-2"])
    def test_a_stream_never_splits_a_character(self, kind: str) -> None:
        tokenizer = small(kind)
        stream = TextStream(tokenizer, at_start=True)
        pieces = [stream.push(token) for token in tokenizer.encode("a 🦙 漢 字")]
        assert "".join(pieces) == "a 🦙 漢 字"
        assert "\ufffd" not in "".join(pieces)
        assert "" in pieces

    def test_no_space_is_put_before_where_the_file_says_so(self) -> None:
        tokenizer = build_spm(small_vocabularies.sentencepiece(add_space_prefix=False))
        assert tokenizer.token_text(tokenizer.encode("keeper", add_special=False)[0])[0] == "k"
        assert tokenizer.decode(tokenizer.encode(" keeper")) == " keeper"


class TestSpecial:
    def test_control_tokens_are_read_only_when_asked(self) -> None:
        tokenizer = small("gpt-2")
        end = tokenizer.vocabulary.ids["<|im_end|>"]
        assert end not in tokenizer.encode("hi<|im_end|>")
        assert tokenizer.encode("hi<|im_end|>", parse_special=True)[-1] == end
        assert tokenizer.decode([end]) == ""
        assert tokenizer.decode([end], skip_special=False) == "<|im_end|>"

    def test_user_defined_tokens_are_always_read(self) -> None:
        tokenizer = small("gpt-2")
        user = tokenizer.vocabulary.ids["<user>"]
        assert tokenizer.encode("a<user><user>b", add_special=False)[1:3] == [user, user]
        assert tokenizer.decode([user]) == "<user>"

    def test_merging_never_makes_a_control_token(self) -> None:
        metadata = small_vocabularies.byte_level()
        tokens = [*metadata["tokenizer.ggml.tokens"], "<<", "<<>"]
        changes: dict[str, Any] = {
            "tokens": tokens,
            "merges": ["< <", "<< >"],
            "token_type": [*metadata["tokenizer.ggml.token_type"], 1, 3],
        }
        tokenizer = build_bpe(small_vocabularies.byte_level(**changes))
        spelt = [tokenizer.token_text(token) for token in tokenizer.encode("<<>", add_special=False)]
        assert spelt == ["<<", ">"]
        assert tokenizer.encode("<<>", add_special=False, parse_special=True) == [len(tokens) - 1]

    @pytest.mark.parametrize(
        ("changes", "begins", "ends"),
        [
            ({}, False, False),
            ({"pre": "llama-bpe"}, True, False),
            ({"pre": "llama-bpe", "add_bos_token": False}, False, False),
            ({"add_bos_token": True, "add_eos_token": True}, True, True),
        ],
    )
    def test_begin_and_end_of_byte_level(self, changes: dict[str, Any], begins: bool, ends: bool) -> None:
        tokenizer = build_bpe(small_vocabularies.byte_level(**changes))
        ids = tokenizer.encode("hi")
        assert (tokenizer.add_bos, tokenizer.add_eos) == (begins, ends)
        assert (ids[0] == tokenizer.bos, ids[-1] == tokenizer.eos) == (begins, ends)
        assert tokenizer.encode("", add_special=False) == []

    def test_begin_of_sentencepiece(self) -> None:
        tokenizer = build_spm(small_vocabularies.sentencepiece(bos_token_id=None, eos_token_id=None))
        assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos) == (1, 2, True, False)
        assert tokenizer.encode("") == [1]

    def test_the_id_minus_one_means_none(self) -> None:
        tokenizer = build_bpe(small_vocabularies.byte_level(bos_token_id=0xFFFFFFFF, padding_token_id=0xFFFFFFFF))
        assert tokenizer.bos is None

    def test_well_known_names_end_a_text(self) -> None:
        tokens = [
            *small_vocabularies.byte_level()["tokenizer.ggml.tokens"][:256],
            "<|eot_id|>",
            "<|fim_prefix|>",
            "xyz",
        ]
        changes: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 258, "token_type": None, "merges": []}
        tokenizer = build_bpe(small_vocabularies.byte_level(tokens=tokens, **changes))
        assert tokenizer.end_tokens == {256, 258}
        assert tokenizer.decode([256, 257]) == ""

    def test_a_name_that_merging_makes_is_text(self) -> None:
        tokens = [*small_vocabularies.byte_level()["tokenizer.ggml.tokens"][:256], "</", "s>", "</s>"]
        changes: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "token_type": None}
        tokenizer = build_bpe(
            small_vocabularies.byte_level(tokens=tokens, merges=["< /", "s >", "</ s>"], pre="default", **changes)
        )
        assert 258 not in tokenizer.end_tokens
        assert tokenizer.decode([258]) == "</s>"

    def test_harmony_messages_do_not_end_a_text(self) -> None:
        names = ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"]
        tokens = [*small_vocabularies.byte_level()["tokenizer.ggml.tokens"][:256], *names]
        changes: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 256, "merges": []}
        tokenizer = build_bpe(small_vocabularies.byte_level(tokens=tokens, token_type=[1] * 256 + [3] * 4, **changes))
        assert tokenizer.end_tokens == {256, 257}
        assert tokenizer.decode([258, 259]) == "<|end|><|channel|>"

    def test_phi_3_takes_white_space_after_special_tokens(self) -> None:
        metadata = small_vocabularies.sentencepiece() | {"general.name": "Phi3"}
        tokenizer = build_spm(metadata)
        assert tokenizer.encode("</s> \n a", parse_special=True) == tokenizer.encode("</s>a", parse_special=True)

    def test_two_begin_tokens_warn(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            assert small("spm").encode("<s>a", parse_special=True)[:2] == [1, 1]
        assert "the text names the token '<s>' that begins it, and gets another" in caplog.text

    def test_missing_pre_warns(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            tokenizer = build_bpe(small_vocabularies.byte_level(pre=None))
        assert "tokenizer.ggml.pre is missing" in caplog.text
        assert tokenizer.encode("it's 12") == small("default").encode("it's 12")

    @settings(max_examples=200, deadline=None)
    @given(st.text("abcd ", max_size=30))
    def test_longest_names_are_read_first(self, text: str) -> None:
        names = ["bcda", "abc", "bb", "a"]
        tokens = [*names, "b", "c", "d", " "]
        kinds = [Kind.USER_DEFINED] * len(names) + [Kind.NORMAL] * (len(tokens) - len(names))
        vocabulary = Vocabulary(tokens, list(kinds), None, {token: i for i, token in enumerate(tokens)})
        partition = Partition(vocabulary, read_specials({}, vocabulary, Defaults()))
        wanted: list[str | int] = [text] if text else []
        for name in sorted(names, key=len, reverse=True):
            wanted = [part for old in wanted for part in split_at(old, name, tokens.index(name))]
        found = partition.cut(text, parse_special=False)
        assert found == wanted

    def test_many_special_tokens_take_no_longer(self) -> None:
        base = small_vocabularies.byte_level()
        names = [f"<extra_{i}>" for i in range(2000)]
        tokenizer = build_bpe(
            small_vocabularies.byte_level(
                tokens=[*base["tokenizer.ggml.tokens"], *names],
                token_type=[*base["tokenizer.ggml.token_type"], *[4] * len(names)],
            )
        )
        text = "".join(names) + "<user>x" * 50_000
        start = time.process_time()
        tokens = tokenizer.encode(text, add_special=False)
        assert time.process_time() - start < 10
        assert tokenizer.decode(tokens) == text


class TestLongTexts:
    @pytest.mark.parametrize("kind", [*DISTINCT, "spm", "gemma4"])
    @pytest.mark.parametrize(
        "text",
        [
            " " * 100_000 + "x",
            "a" * 100_000,
            "7" * 100_000,
            "\n" * 100_000,
            "\t" * 50_000 + "." * 50_000,
            "' " * 50_000,
        ],
        ids=["spaces", "letters", "digits", "lines", "tabs", "quotes"],
    )
    def test_time_grows_with_length(self, kind: str, text: str) -> None:
        tokenizer = small(kind)
        start = time.process_time()
        tokens = tokenizer.encode(text)
        assert time.process_time() - start < 5
        assert tokenizer.decode(tokens) == text

    @pytest.mark.parametrize("pre", DISTINCT)
    def test_every_pre_tokenizer_cuts_at_boundaries(self, pre: str) -> None:
        tokenizer, text = small(pre), small_vocabularies.TEXT
        whole = tokenizer.encode(text, add_special=False)
        places = [found.end() for found in PRE_TOKENIZERS[pre].boundary.finditer(text)]
        assert places
        for at in places:
            parts = [tokenizer.encode(part, add_special=False) for part in (text[:at], text[at:])]
            assert parts[0] + parts[1] == whole

    def test_parts(self) -> None:
        text = "one two three " * 10
        parts = list(chunks(text, 20, BOUNDARY))
        assert "".join(parts) == text
        assert all(part[0] == " " for part in parts[1:])
        assert [len(part) for part in chunks("x" * 100, 20, NOWHERE)] == [40, 40, 20]

    def test_long_texts_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = small_vocabularies.TEXT * 5
        wanted = small("qwen2").encode(text)
        in_lines = small("gemma4").encode(text)
        monkeypatch.setattr(bpe, "CHUNK", 300)
        monkeypatch.setattr(text_bpe, "CHUNK", 300)
        monkeypatch.setattr(spm, "CHUNK", 100)
        assert small("qwen2").encode(text) == wanted
        assert small("gemma4").encode(text) == in_lines
        assert small("spm").decode(small("spm").encode("漢" * 1000)) == "漢" * 1000


class TestPlugin:
    def test_factories(self) -> None:
        found = {factory.model: factory for factory in Registry.of(sis_tokenizers).records("tokenizers")}
        assert sorted(found) == ["gemma4", "gpt2", "llama"]
        assert set(found["gpt2"].pre) == {*PRE_TOKENIZERS, *TEXT_PRES}

    @pytest.mark.parametrize("pre", TEXT_PRES)
    def test_characters_by_the_name_of_the_pre_tokenizer(self, pre: str) -> None:
        tokenizer = sis_tokenizers.build_gpt2(small_vocabularies.characters(model="gpt2", pre=pre))
        assert tokenizer.encode("The keeper\n\n½") == small("gemma4").encode("The keeper\n\n½")

    def test_arrays_of_a_file(self, random_model: Path) -> None:
        tokenizer = opened(random_model)
        assert tokenizer.decode(tokenizer.encode("hello the")) == "hello the"
        assert tokenizer.token_text(259) == "Ġt"

    @pytest.mark.parametrize("kind", ["spm", "llama-bpe"])
    def test_threads(self, kind: str) -> None:
        tokenizer, text = small(kind), small_vocabularies.TEXT
        wanted = tokenizer.encode(text)
        with ThreadPoolExecutor(4) as pool:
            assert all(found == wanted for found in pool.map(tokenizer.encode, [text] * 40))

    def test_bytes_or_str(self) -> None:
        metadata = small_vocabularies.byte_level()
        as_bytes = {
            key: [item.encode() if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else value
            for key, value in metadata.items()
        }
        assert build_bpe(as_bytes).encode("The keeper") == small("gpt-2").encode("The keeper")

    def test_a_panic_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class PanicException(BaseException):
            pass

        tokenizer = build_bpe(small_vocabularies.byte_level())

        class Engine:
            def encode(self, text: str, add_special_tokens: bool) -> None:
                raise PanicException("index out of range")

        monkeypatch.setattr(tokenizer, "_engine", Engine())
        with pytest.raises(TokenizerError, match="cannot be cut into tokens: index out of range"):
            tokenizer.encode("a")
