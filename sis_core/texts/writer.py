"""The writing of one text: the one place where a row of logits is turned into a token, and tokens into pieces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sis_core.arrays import F32
from sis_core.errors import SamplerError
from sis_core.sampler import SamplerContext
from sis_core.step import Best
from sis_core.texts.ahead import Ahead
from sis_core.texts.chain import Chain, check_top
from sis_core.texts.request import FinishReason, Request
from sis_core.texts.stops import StopFilter, control_tokens
from sis_core.tokenizer import TextStream, Tokenizer


class Written(NamedTuple):
    """A token, the text that it completes, why it is the last, if it is, and the stop string that made it so."""

    token: int
    text: str
    reason: FinishReason | None
    stop: str | None


class Writer:
    """What follows the tokens of one text: its chain, its characters, its ends. SisError when a sampler cannot start.

    Args:
        prompt: its token ids, as they will be fed.

    Attributes:
        forces: whether a sampler may know what must come next.
        greedy: whether no more need be known of logits than which is best.
        ends: tokens of which the text knows that it ends with them.
    """

    def __init__(self, request: Request, prompt: list[int], n_vocab: int, tokenizer: Tokenizer) -> None:
        self._max_tokens, self._logprobs = request.max_tokens, request.logprobs
        self._nothing = np.zeros(n_vocab, np.float32)
        self._chain = Chain.start(request.samplers, SamplerContext(n_vocab, prompt, tokenizer, request.seed))
        self.forces = self._chain.forces
        self.greedy = self._chain.takes_best and request.logprobs is None and not request.reads_prompt
        at_start = not tokenizer.decode(prompt[:8])  # nothing but control tokens: the text begins here
        self._stream = TextStream(tokenizer, skip_special=not request.spell_special, at_start=at_start)
        self._stops = StopFilter(request.stop)
        self._stop_tokens = control_tokens(request.stop, tokenizer)
        self._end_tokens = frozenset() if request.ignore_end else tokenizer.end_tokens
        self.ends = frozenset(self._stop_tokens) | self._end_tokens
        self._n_written = 0

    def forced(self) -> Ahead:
        """The tokens that must come next, as far as they are known."""
        tokens = self._chain.forced()
        return Ahead(tokens, len(tokens) if tokens and self._logprobs is None and self._chain.blind else 0)

    def write(self, logits: F32 | Best | None, *, full: bool) -> Written:
        """Choose the next token from its raw ``logits`` ``(n_vocab,)``; ``full`` says that the context ends with it.

        A `greedy` one takes what is best of them as well. The draw depends on nothing but the seed and the number of
        tokens written before. Without ``logits`` the token is one that is forced: the chain still has its say, and
        fails where it would have failed.
        """
        token = self._choose(logits)
        self._chain.accept(token)
        self._n_written += 1
        reason: FinishReason | None = None
        if (stop := self._stop_tokens.get(token)) is not None:
            text = self._stops.flush(self._stream.flush())
            return Written(token, text, "stop", self._stops.found or stop)
        if token in self._end_tokens:
            reason, text = "end", ""
        else:
            text = self._stops.push(self._stream.push(token))
            if self._stops.found:
                reason = "stop"
            elif self._n_written == self._max_tokens:
                reason = "length"
            elif full:
                reason = "context"
        if reason not in (None, "stop"):
            text += self._stops.flush(self._stream.flush())
            reason = "stop" if self._stops.found else reason
        return Written(token, text, reason, self._stops.found)

    def _choose(self, logits: F32 | Best | None) -> int:
        if logits is None:
            return self._chain.choose(self._nothing, self._n_written)
        best = logits if isinstance(logits, Best) else Best.of(logits)
        if not (best.lowest > -np.inf and best.highest < np.inf):
            check_finite(best)
            check_top(best.highest)
        if self._chain.takes_best:
            return best.token
        assert not isinstance(logits, Best)
        return self._chain.choose(logits, self._n_written)


def check_finite(best: Best) -> None:
    """SamplerError where a model gave a logit that is infinite; a chain says so of NaN itself."""
    if best.highest == np.inf or best.lowest == -np.inf:
        raise SamplerError(
            "the model gave a logit that is infinite",
            where="sampling",
            fix="check the file with `sis doctor -m FILE --check-tensors`",
        )
