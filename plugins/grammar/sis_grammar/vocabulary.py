"""What llguidance knows of a tokenizer: made once for each, when a grammar is first asked for."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, cast
from weakref import WeakKeyDictionary

from llguidance import LLTokenizer

from sis_core.errors import SamplerError
from sis_core.tokenizer import Tokenizer
from sis_grammar.caps import WHERE
from sis_grammar.compiler import Compiler
from sis_grammar.definition import Definition
from sis_grammar.place import Place
from sis_grammar.within_text import WithinText

SPECIAL = b"\xff"  # how llguidance marks the name of a token that is no text
MAX_KEPT = 8


class Vocabularies:
    """The `Vocabulary` of every tokenizer that lives; thread-safe."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()
        self._lock = Lock()

    def of(self, tokenizer: Tokenizer) -> Vocabulary:
        """Raises SamplerError for a tokenizer without an end token: a grammar could not end."""
        with self._lock:  # held while one is made, so that two threads do not make the same
            try:
                made = self._made.get(tokenizer)
            except TypeError:  # neither hashable nor weakly referable: kept by nobody
                return Vocabulary(tokenizer)
            if made is None:
                made = self._made[tokenizer] = Vocabulary(tokenizer)
            return made


class Vocabulary:
    """The tokens of one tokenizer as a trie of bytes, and the grammars compiled for it; thread-safe.

    It refers to the tokenizer weakly, so that it dies with it: whoever computes on it holds the tokenizer.

    Attributes:
        worker: the thread on which masks are computed. One, because copies of a compiled grammar share a lexer behind
            a lock.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.end_tokens:
            raise SamplerError("the vocabulary has no token that ends a text, so a grammar could not end", where=WHERE)
        self._compile = Compiler(_engine(tokenizer))
        self.worker = ThreadPoolExecutor(1, "sis-grammar")
        self._starts: OrderedDict[Definition, Place] = OrderedDict()
        self._lock = Lock()

    def start_of(self, definition: Definition) -> Place:
        """Where every text of a grammar begins; the `MAX_KEPT` used last are kept, for a server sees the same again.

        Raises:
            SamplerError: the grammar cannot be enforced, takes too long to compile, or allows no text.
        """
        with self._lock:
            if (found := self._starts.get(definition)) is not None:
                self._starts.move_to_end(definition)
                return found
        place = self._compile(definition)
        with self._lock:
            self._starts[definition] = place
            while len(self._starts) > MAX_KEPT:
                self._starts.popitem(last=False)
        return place

    def forget(self, start: Place) -> None:
        """Compile a grammar anew next time: after an error what its copies share may be spoilt."""
        with self._lock:
            for definition in [known for known, place in self._starts.items() if place is start]:
                del self._starts[definition]


class _TokenizerView:
    """A tokenizer as `LLTokenizer` wants it."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.ref(tokenizer)
        self._encode = WithinText(tokenizer)
        self.eos_token_id = min(tokenizer.end_tokens)
        self.tokens = [_token_bytes(tokenizer, token) for token in range(tokenizer.n_vocab)]

    def __call__(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "whoever computes holds the tokenizer"
        return self._encode(tokenizer, text)


def _engine(tokenizer: Tokenizer) -> LLTokenizer:
    view = _TokenizerView(tokenizer)
    engine = LLTokenizer(cast(Any, view), eos_token=sorted(tokenizer.end_tokens))
    view.tokens = []  # llguidance has its own copy
    return engine


def _token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes that a token adds to a text; of control and end tokens the marked name, which no text has."""
    raw = tokenizer.token_bytes(token)
    if raw and token not in tokenizer.end_tokens:
        return raw
    name = tokenizer.token_bytes(token, skip_special=False)
    return SPECIAL + name if name else b""
