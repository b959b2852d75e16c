"""Compiling a grammar: on a thread with a stack of its own, for a limited time."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from sis_core.errors import SamplerError, SisError
from sis_grammar.caps import WHERE
from sis_grammar.definition import Definition
from sis_grammar.place import Place, look
from sis_grammar.refusal import refusal

SECONDS = 5.0
AT_ONCE = 2
STACK_BYTES = 64 * 1024 * 1024  # a chain of 6,000 definitions takes less; only what is touched is memory


class Compiler:
    """Compiles grammars for one vocabulary, `AT_ONCE` at a time; thread-safe.

    What takes too long is given up by whoever waits, but keeps its place among the `AT_ONCE` until llguidance's own
    limits end it, so that hostile grammars cannot fill the machine.
    """

    def __init__(self, engine: LLTokenizer) -> None:
        self._engine = engine
        self._limits = LLParserLimits(
            max_items_in_row=5_000,  # an object of 1,000 optional properties has 4,007
            step_lexer_fuel=2_000_000,  # long bounded strings beside others spend more than the default in one mask
            max_lexer_states=50_000,
            verbose_errors=False,
        )
        self._slots = threading.Semaphore(AT_ONCE)

    def __call__(self, definition: Definition) -> Place:
        """Where the texts of a grammar begin.

        Raises:
            SamplerError: it cannot be enforced (the message names the keyword, the place and the reason), takes longer
                than `SECONDS`, or allows no text at all.
        """
        if not self._slots.acquire(timeout=SECONDS):
            raise SamplerError("other grammars are still being compiled", where=WHERE, fix="try again later")
        done: Future[Place] = Future()
        try:
            _start(
                threading.Thread(target=self._work, args=(definition, done), name="sis-grammar-compile", daemon=True)
            )
        except BaseException:
            self._slots.release()
            raise
        try:
            return done.result(SECONDS)
        except TimeoutError:
            raise SamplerError(
                f"{definition.option} takes longer than {SECONDS:g} s to compile",
                where=WHERE,
                fix="simplify it",
            ) from None

    def _work(self, definition: Definition, done: Future[Place]) -> None:
        try:
            matcher = LLMatcher(self._engine, definition.for_llguidance(), log_level=0, limits=self._limits)
            if matcher.is_error():
                raise refusal(definition, matcher.get_error())
            done.set_result(look(matcher))
        except SisError as error:
            done.set_exception(error)
        except BaseException as error:  # a panic of llguidance is no Exception
            done.set_exception(SamplerError(f"failed: {type(error).__name__}: {error}", where=WHERE))
        finally:
            self._slots.release()


_STACKS = threading.Lock()


def _start(thread: threading.Thread) -> None:
    """Start a thread with a stack of `STACK_BYTES`: llguidance goes down into a grammar by recursion, and a stack that
    overflows ends the program."""
    with _STACKS:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
