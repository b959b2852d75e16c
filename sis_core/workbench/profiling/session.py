"""Running a text under the recorder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sis_core.texts.chain_text import make_chain
from sis_core.texts.feeding import ASKED
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.part import Asked, Part, Rows
from sis_core.texts.request import Piece
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import Session
from sis_core.workbench.profiling.recorder import Recorder
from sis_core.workbench.profiling.sampling import timed_samplers


class TimedSession(Session):
    """A session whose steps are timed."""

    recorder: Recorder

    def run(self, parts: Sequence[Part], asked: Asked = ASKED) -> dict[int, Rows]:
        with self.recorder.span("session"):
            return super().run(parts, asked)


def profile_text(
    model: LanguageModel,
    recorder: Recorder,
    prompt: str,
    *,
    n_tokens: int,
    samplers: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> str:
    """Continue ``prompt`` by ``n_tokens`` tokens, every part timed, and return the new text.

    ``model`` was opened with the backend of `profiling`. The spans ``prompt`` and ``token`` hold all others.
    """
    with recorder.span("prompt"):
        with recorder.span("tokenize", _tokenizer_owner(model)):
            tokens = model.tokenize(prompt)
        chain = timed_samplers(make_chain(model.registry, None, samplers, options), model.registry, recorder)
        request = model.request(tokens, sampler=chain, max_tokens=n_tokens, seed=0, ignore_end=True)
        session = TimedSession(model, n_ctx=min(model.config.n_ctx, len(tokens) + n_tokens))
        session.recorder, recorder.stats = recorder, session.stats
        scheduler = Scheduler(session, reuse=False, drafting=model.drafting)
        scheduler.add(request)
        pieces = scheduler.run()
        text = [_sound(next(pieces))]
    with scheduler:
        while True:
            recorder.token += 1
            span = recorder.begin("token")
            piece = next(pieces, None)
            if piece is None:
                break  # the span of a token that did not come is dropped
            recorder.end(span)
            text.append(_sound(piece))
            if progress:
                progress("tokens", len(text), n_tokens)
    return "".join(text)


def _sound(piece: Piece) -> Piece:
    """The piece, or the error that it carries."""
    if piece.error is not None:
        raise piece.error
    return piece


def _tokenizer_owner(model: LanguageModel) -> str:
    """The plugin that brings the model's tokenizer."""
    factory = model.registry.find("tokenizers", str(model.metadata.get("tokenizer.ggml.model")))
    return model.registry.owner("tokenizers", factory) or "core"
