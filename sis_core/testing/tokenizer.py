"""`check_tokenizer`: what every tokenizer must keep to, whatever its tokens are."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from sis_core.errors import SisError, TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.guarded_tokenizer import MEMBERS
from sis_core.tokenizer import TextStream, Tokenizer, TokenizerFactory

PREFIX = "tokenizer.ggml."
CONTROL = 3  # in `tokenizer.ggml.token_type`
TEXTS = (
    "Once upon a time, a wren sang.",
    "  two spaces before, two behind  ",
    " one\n\ntwo\r\n\tthree\n",
    "\n",
    "1234567 3.14 x=y+1; def f(a): return [a]*2",
    'don\'t <b>stop</b> & \\n %20 {"a": [1]} Ġ <0x41>',
    "Größe, señor, нещо на български, עברית, हिन्दी",
    "漢字かな交じり文、한국어。",
    "e\u0301 \u00a0\u3000 ½ ⅷ \ufeff \ufffd",
    "😀👍🏽👩\u200d👩\u200d👧 🌳\U0010fffd",
    "\0\x01\x1b\x7f",
    "a" * 2000,
)
N_TOKENS = 4096  # of a large vocabulary, so many are looked at one by one
N_SEQUENCES = 200
UNTYPED: tuple[Any, ...] = (-7, 1.5, "text", [1.5, 2.5], 1 << 40)


def check_tokenizer(
    factory: TokenizerFactory, metadata: Mapping[str, Any], /, *, texts: Sequence[str] = (), lossless: bool = True
) -> None:
    """Hold a tokenizer to the contract of `sis_core.tokenizer`.

    Args:
        metadata: keys of a file that the factory builds from, ``tokenizer.ggml.model`` among them. They are written to
            a file and read again, so that ``build`` gets what it gets in earnest: arrays, of which strings are bytes.
        texts: more of them to try.
        lossless: every text comes back as it was. Where a tokenizer changes texts on purpose (small letters) or has
            tokens for some characters only, say False: then what comes back must at least come back again, and a text
            may be refused with a TokenizerError.

    Raises:
        AssertionError: naming the tokenizer, the fault, and the text or token that showed it.
    """
    check = _Check(factory, metadata, lossless)
    check.declaration()
    for text in (*TEXTS, *_characters(), *texts):
        check.round_trip(text)
    check.again([*TEXTS, *texts])
    check.tokens()
    check.streams()
    check.specials()
    check.refusals()
    check.damage()


class _Check:
    def __init__(self, factory: TokenizerFactory, metadata: Mapping[str, Any], lossless: bool) -> None:
        self.factory, self.lossless = factory, lossless
        self.name = getattr(factory, "model", None)
        if not isinstance(factory, TokenizerFactory) or not isinstance(self.name, str) or not self.name:
            self.fail("is not a TokenizerFactory with the value of tokenizer.ggml.model that it answers to")
        self.metadata = dict(metadata)
        if self.metadata.get(PREFIX + "model") != self.name:
            self.fail(f"answers to {self.name!r}, but the metadata say {self.metadata.get(PREFIX + 'model')!r}")
        try:
            self.tokenizer: Tokenizer = factory.build(_from_file(self.metadata))
        except Exception as error:
            self.fail(f"build raised {type(error).__name__}: {error}; arrays of strings hold bytes")
        self.random = random.Random(3)

    def fail(self, fault: str, case: str = "") -> NoReturn:
        raise AssertionError(f"tokenizer {self.name}: {fault}{f' ({case})' if case else ''}")

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that must work."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            self.fail(f"{what} raised {type(error).__name__}: {error}")

    # -- what it says of itself -------------------------------------------------------------------------------------

    def declaration(self) -> None:
        made = self.tokenizer
        for member in MEMBERS:
            if not hasattr(made, member):
                self.fail(f"has no {member}")
        if type(made.n_vocab) is not int or made.n_vocab < 1:
            self.fail(f"n_vocab is {made.n_vocab!r}")
        count = len(self.metadata.get(PREFIX + "tokens") or ()) or made.n_vocab
        if made.n_vocab != count:
            self.fail(f"n_vocab is {made.n_vocab}, but the file has {count} tokens")
        for which in ("bos", "eos"):
            token = getattr(made, which)
            if token is not None and (type(token) is not int or not 0 <= token < made.n_vocab):
                self.fail(f"{which} is {token!r}, neither None nor an id")
            if getattr(made, f"add_{which}") and token is None:
                self.fail(f"add_{which} is true, but {which} is None")
        if not isinstance(made.end_tokens, frozenset) or not all(0 <= t < made.n_vocab for t in made.end_tokens):
            self.fail(f"end_tokens is {made.end_tokens!r}, not a frozenset of ids")
        if made.eos is not None and made.eos not in made.end_tokens:
            self.fail("eos is not among end_tokens")

    # -- texts ------------------------------------------------------------------------------------------------------

    def encode(self, text: str, **options: bool) -> list[int] | None:
        """Ids of a text, each checked; None for one that the vocabulary cannot express, where that may be."""
        try:
            found = self.tokenizer.encode(text, **options)
        except TokenizerError as error:
            if self.lossless:
                self.fail(
                    f"cannot encode {text[:40]!r}: {error}; a tokenizer that has no tokens for some bytes says so: "
                    "check_tokenizer(…, lossless=False)"
                )
            return None
        except Exception as error:
            self.fail(f"encode raised {type(error).__name__}: {error}", repr(text[:40]))
        if type(found) is not list or not all(type(token) is int for token in found):
            self.fail(f"encode returned {type(found).__name__} {found!r:.60}, not a list of int", repr(text[:40]))
        if any(not 0 <= token < self.tokenizer.n_vocab for token in found):
            self.fail(f"encode gave ids outside the vocabulary of {self.tokenizer.n_vocab}", repr(text[:40]))
        return found

    def round_trip(self, text: str) -> None:
        plain, case = self.encode(text, add_special=False), repr(text[:40])
        if plain is None:
            return
        if not text and plain:
            self.fail(f"an empty text is the tokens {plain}")
        made = self.tokenizer
        before = [made.bos] if made.add_bos else []
        after = [made.eos] if made.add_eos else []
        whole = self.encode(text)
        if whole != [*before, *plain, *after]:
            self.fail(
                f"add_special gives {whole!r:.60}, not bos and eos (as add_bos and add_eos say) around the text", case
            )
        back = self.call("decode", made.decode, plain)
        if self.lossless and back != text:
            self.fail(f"{text[:40]!r} comes back as {back[:40]!r}")
        again = self.encode(back, add_special=False)
        if again is not None and made.decode(again) != back:
            self.fail(f"{back[:40]!r}, which it decoded itself, comes back as {made.decode(again)[:40]!r}")
        if made.decode(tuple(plain)) != back:
            self.fail("decode gives another text for a tuple than for a list", case)

    def again(self, texts: Sequence[str]) -> None:
        """The same ids from another tokenizer of the same file, after other texts, and in threads."""
        texts = [text for text in texts if self.encode(text) is not None]
        wanted = [self.encode(text) for text in texts]
        for order in (list(range(len(texts))), list(range(len(texts)))[::-1]):
            other = self.factory.build(_from_file(self.metadata))
            found = {i: other.encode(texts[i]) for i in order}
            if [found[i] for i in range(len(texts))] != wanted:
                self.fail("gives other ids when it is built again, or when other texts came before")
        with ThreadPoolExecutor(4) as pool:
            for several in pool.map(lambda _: [self.tokenizer.encode(text) for text in texts], range(8)):
                if several != wanted:
                    self.fail("gives other ids in threads: a tokenizer must not change")

    # -- tokens -----------------------------------------------------------------------------------------------------

    def ids(self) -> list[int]:
        n = self.tokenizer.n_vocab
        return list(range(n)) if n <= N_TOKENS else sorted(self.random.sample(range(n), N_TOKENS))

    def tokens(self) -> None:
        made = self.tokenizer
        for token in self.ids():
            for skip in (True, False):
                raw = self.call(f"token_bytes({token})", made.token_bytes, token, skip_special=skip)
                if type(raw) is not bytes:
                    self.fail(f"token_bytes({token}) is {raw!r:.40}, not bytes")
            if type(self.call(f"token_text({token})", made.token_text, token)) is not str:
                self.fail(f"token_text({token}) is {made.token_text(token)!r:.40}, not str")

    def streams(self) -> None:
        """Whatever tokens come, a stream says what `decode` says, and never a part of a character."""
        made, ids = self.tokenizer, self.ids()
        chosen = [self.random.choices(ids, k=self.random.randint(1, 12)) for _ in range(N_SEQUENCES)]
        written = [found for text in TEXTS if (found := self.encode(text, add_special=False))]
        for tokens in [*chosen, *written]:
            whole = self.call("decode", made.decode, tokens)
            summed = b"".join(made.token_bytes(token) for token in tokens)
            sums = [part.decode("utf-8", "replace") for part in (summed, summed.removeprefix(b" "))]
            if whole not in sums:
                self.fail(f"decode({tokens}) is {whole!r}, but the bytes of its tokens say {sums[0]!r}")
            stream = TextStream(made, at_start=True)
            pieces = [stream.push(token) for token in tokens]
            if "".join(pieces) + stream.flush() != whole:
                self.fail(f"tokens {tokens} stream as {''.join(pieces)!r}, but decode says {whole!r}")
        for tokens in written:
            stream = TextStream(made, at_start=True)
            if self.lossless and "".join(map(stream.push, tokens)).count("\ufffd") > made.decode(tokens).count(
                "\ufffd"
            ):
                self.fail("a stream gives a part of a character as U+FFFD")

    # -- special tokens ---------------------------------------------------------------------------------------------

    def controls(self) -> dict[int, str]:
        """Control tokens and their names: those that the tokenizer names, and those that the file marks."""
        made, types = self.tokenizer, self.metadata.get(PREFIX + "token_type") or ()
        marked = {token for token, kind in enumerate(types) if kind == CONTROL}
        found = {token for token in (made.bos, made.eos, *marked) if token is not None}
        return {token: made.token_text(token) for token in sorted(found)[:64]}

    def specials(self) -> None:
        made = self.tokenizer
        for token, name in self.controls().items():
            if raw := made.token_bytes(token):
                self.fail(f"control token {token} {name!r} adds {raw!r} to a text although skip_special is true")
            plain = self.encode("a", add_special=False)
            if plain and made.decode([token, *plain, token]) != made.decode(plain):
                self.fail(f"decode shows something of control token {token} {name!r} although skip_special is true")
            if not name.strip():
                continue
            if token in (self.encode(f"a{name}b", add_special=False) or ()):
                self.fail(f"reads {name!r} in a text as control token {token} although parse_special is false")
            found = self.encode(f"a{name}b", add_special=False, parse_special=True)
            if found is not None and found.count(token) != 1:
                self.fail(f"does not read {name!r} as control token {token} although parse_special is true: {found}")

    # -- what is refused --------------------------------------------------------------------------------------------

    def refusals(self) -> None:
        made, n = self.tokenizer, self.tokenizer.n_vocab
        for bad in (-1, n, 1 << 70):
            for verb, run in (
                ("decode", lambda token: made.decode([token])),
                ("token_bytes", made.token_bytes),
                ("token_text", made.token_text),
            ):
                self.refuses(f"{verb} of the id {bad}, where there are {n}", run, bad)
        for text in ("a\ud800b", "\udfff"):
            self.refuses(f"encode of the lone surrogate in {text!r}", made.encode, text)

    def refuses(self, what: str, run: Callable[[Any], Any], argument: Any) -> None:
        try:
            found = run(argument)
        except TokenizerError:
            return
        except Exception as error:
            self.fail(f"{what} raised {type(error).__name__}, not a TokenizerError: {error}")
        self.fail(f"{what} gave {found!r:.40}, and should be a TokenizerError")

    def damage(self) -> None:
        """Files whose keys are missing, of another type or out of range are built, or refused with a TokenizerError."""
        for what, values in self.damaged():
            try:
                made = self.factory.build(_from_file(values))
                made.decode(made.encode("a wren", add_special=False))
            except SisError:
                continue
            except Exception as error:
                self.fail(f"a file {what} raised {type(error).__name__}, not a TokenizerError: {error}")

    def damaged(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, value in self.metadata.items():
            if not key.startswith(PREFIX) or key == PREFIX + "model":
                continue
            yield f"without {key}", {k: v for k, v in self.metadata.items() if k != key}
            for other in UNTYPED:
                yield f"where {key} is {other!r}", self.metadata | {key: other}
            if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 1:
                yield f"where {key} is cut short", self.metadata | {key: value[: len(value) // 2]}
                yield f"where every element of {key} is the first", self.metadata | {key: [value[0]] * len(value)}
            if key.endswith("_token_id"):
                yield f"where {key} is outside the vocabulary", self.metadata | {key: self.tokenizer.n_vocab}


def _characters() -> Iterator[str]:
    """A text for each way in which UTF-8 begins a character, and for each of its last bytes."""
    yield "".join(map(chr, range(128)))
    yield "".join(chr(code) for code in range(0x80, 0x110000, 0x3FB) if not 0xD800 <= code < 0xE000)
    yield "".join(chr(0x400 + code) for code in range(64))


def _from_file(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata as they come out of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.gguf")
        GGUFWriter(path, dict(values)).write()
        with GGUFFile.open(path) as file:
            return dict(file.metadata)
