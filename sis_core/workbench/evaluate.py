"""How good a model is on a text, and how far it is from another: perplexity, divergence, errors of weights.

Perplexity is defined as llama.cpp's perplexity tool defines it: the text's tokens (with what the model adds at the
beginning) are cut into chunks of ``n_ctx``; each chunk starts from nothing, with the begin token in place of its first
token where the model adds one; tokens ``n_ctx // 2 + 1`` to ``n_ctx - 1`` of each chunk are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from attrs import define, field, frozen

from sis_core.arrays import F32, F64
from sis_core.errors import ModelError
from sis_core.loading.model import Model
from sis_core.loading.weights import file_weights
from sis_core.quant import Weight
from sis_core.sampler import log_softmax
from sis_core.texts.session import CHUNK, Session
from sis_core.workbench.chunks import chunks_of

BLOCK_VALUES = 1 << 21  # logits looked at together: 16 MiB in float64
STEP_VALUES = 1 << 25  # logits that one step may return: 128 MiB
Progress = Callable[[str, int, int], None]


@frozen
class Divergence:
    """How far a model's next-token distributions are from a reference's, over all scored tokens.

    Attributes:
        reference_perplexity: of the reference on the same tokens.
        kl_mean, kl_median, kl_p99, kl_max: Kullback-Leibler divergence KL(reference ‖ model) in nats.
        kl_error: standard error of the mean.
        top1: share of places where both find the same token likeliest.
        p_rms: root mean square of the difference in the probability of the text's own token.
    """

    reference_perplexity: float
    kl_mean: float
    kl_error: float
    kl_median: float
    kl_p99: float
    kl_max: float
    top1: float
    p_rms: float


@frozen
class Score:
    """Perplexity of a text and its standard error; ``nll`` is the mean negative log-likelihood in nats a token."""

    perplexity: float
    error: float
    nll: float
    n_tokens: int
    n_chunks: int
    n_ctx: int
    divergence: Divergence | None = None


@frozen
class TensorError:
    """A tensor's distance from the reference's: ``rmse`` and ``relative``, divided by the reference's own RMS."""

    name: str
    type_name: str
    rmse: float
    relative: float
    max_error: float


@define
class _Tally:
    nll: list[F64] = field(factory=list)
    reference_nll: list[F64] = field(factory=list)
    kl: list[F64] = field(factory=list)
    same_top: int = 0


def evaluate(
    model: Model,
    tokens: Sequence[int],
    *,
    n_ctx: int = 512,
    reference: Model | None = None,
    n_chunks: int | None = None,
    where: str = "text",
    progress: Progress | None = None,
) -> Score:
    """Score ``tokens`` (as the tokenizer gives them, with its special tokens), and compare with ``reference``.

    Raises:
        ContextError: there are fewer tokens than one chunk holds.
        ModelError: the two models do not have the same vocabulary, or a logit is NaN.
    """
    chunks = chunks_of(tokens, n_ctx, model.tokenizer, where)
    chunks = chunks[: n_chunks or len(chunks)]
    if reference is not None:
        _check_vocabulary(model, reference)
    tally = _Tally()
    with ExitStack() as stack:
        session = stack.enter_context(Session(model, n_ctx=n_ctx))
        other = stack.enter_context(Session(reference, n_ctx=n_ctx)) if reference else None
        for i, chunk in enumerate(chunks):
            scored = np.array(chunk.ids)
            if other is None:
                for at, logits in _logits(session, chunk.fed):
                    _add(tally, logits, scored[at + 1 : at + 1 + len(logits)], None)
            else:
                for (at, logits), (_, expected) in zip(
                    _logits(session, chunk.fed), _logits(other, chunk.fed), strict=True
                ):
                    _add(tally, logits, scored[at + 1 : at + 1 + len(logits)], expected)
                other.drop(0)
            session.drop(0)
            if progress:
                progress("chunks", i + 1, len(chunks))
    return _score(tally, len(chunks), n_ctx, reference is not None)


def _logits(session: Session, ids: list[int]) -> Iterator[tuple[int, F32]]:
    """Logits after the tokens that have a scored one behind them: pairs of the first token's place and rows."""
    n_ctx, first = len(ids), len(ids) // 2
    for start in range(0, first, CHUNK):
        session.advance({0: ids[start : min(start + CHUNK, first)]}, {0: 0})
    step = max(1, min(CHUNK, STEP_VALUES // session.model.config.n_vocab))
    for start in range(first, n_ctx - 1, step):
        part = ids[start : min(start + step, n_ctx - 1)]
        yield start, session.advance({0: part}, {0: len(part)})[0]


def _add(tally: _Tally, logits: F32, targets: np.ndarray, expected: F32 | None) -> None:
    """Score rows of logits, a few rows at a time so that float64 copies stay small."""
    step = max(1, BLOCK_VALUES // logits.shape[1])
    for start in range(0, len(logits), step):
        stop = min(start + step, len(logits))
        rows, wanted = np.arange(stop - start), targets[start:stop]
        found = log_softmax(logits[start:stop])
        if np.isnan(found).any():
            raise ModelError("the model gave a logit that is NaN", where="eval", fix="check it with `sis doctor -m`")
        tally.nll.append(-found[rows, wanted])
        if expected is not None:
            true = log_softmax(expected[start:stop])
            tally.reference_nll.append(-true[rows, wanted])
            tally.kl.append(kl_divergence(true, found))
            tally.same_top += int((found.argmax(1) == true.argmax(1)).sum())


def kl_divergence(true: F64, found: F64) -> F64:
    """KL(true ‖ found) in nats of each row of log-probabilities."""
    with np.errstate(invalid="ignore"):  # a token that the reference forbids adds nothing: 0 × infinity
        divergence: F64 = np.nansum(np.exp(true) * (true - found), axis=1)
    return divergence


def _score(tally: _Tally, n_chunks: int, n_ctx: int, compared: bool) -> Score:
    nll = np.concatenate(tally.nll)
    mean, error = _mean(nll)
    perplexity = float(np.exp(mean))
    divergence = None
    if compared:
        kl, true = np.concatenate(tally.kl), np.concatenate(tally.reference_nll)
        kl_mean, kl_error = _mean(kl)
        p_rms = float(np.sqrt(np.mean((np.exp(-nll) - np.exp(-true)) ** 2)))
        divergence = Divergence(
            float(np.exp(true.mean())), kl_mean, kl_error, float(np.median(kl)), float(np.quantile(kl, 0.99)),
            float(kl.max()), tally.same_top / len(nll), p_rms,
        )  # fmt: skip
    return Score(perplexity, perplexity * error, mean, len(nll), n_chunks, n_ctx, divergence)


def _mean(values: F64) -> tuple[float, float]:
    """The mean and its standard error."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0


def _check_vocabulary(model: Model, reference: Model) -> None:
    ours, theirs = model.config.n_vocab, reference.config.n_vocab
    probe = "Once upon a time, there were 3 small cats.\n"
    same = ours == theirs and model.tokenizer.encode(probe) == reference.tokenizer.encode(probe)
    if not same:
        raise ModelError(
            f"its vocabulary of {ours} tokens is not that of {reference.path.name} ({theirs} tokens)",
            where=str(model.path),
            fix="compare a model with the file it was made from",
        )


def tensor_errors(model: Model, reference: Model, progress: Progress | None = None) -> list[TensorError]:
    """The distance of every tensor that both files hold in one shape, the worst first; equal bytes are left out."""
    ours, theirs = file_weights(model.file, model.registry), file_weights(reference.file, reference.registry)
    names = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    errors = []
    for i, name in enumerate(names):
        if error := _distance(ours[name], theirs[name]):
            errors.append(error)
        ours[name].release()
        theirs[name].release()
        if progress:
            progress("tensors", i + 1, len(names))
    return sorted(errors, key=lambda error: -error.relative)


def _distance(weight: Weight, reference: Weight) -> TensorError | None:
    alike = weight.format.name == reference.format.name and not (weight.side or reference.side)
    if alike and np.array_equal(weight.raw, reference.raw):
        return None
    squares = scale = worst = 0.0
    for (_, found), (_, true) in zip(weight.panels(), reference.panels(), strict=True):
        difference = found.astype(np.float64) - true
        squares += float(np.vdot(difference, difference))
        scale += float(np.vdot(true.astype(np.float64), true))
        worst = max(worst, float(np.abs(difference).max()))
    n = weight.n_rows * weight.n_cols
    relative = float(np.sqrt(squares / scale)) if scale else float("inf") if squares else 0.0
    return TensorError(weight.name, weight.format.name, float(np.sqrt(squares / n)), relative, worst)
