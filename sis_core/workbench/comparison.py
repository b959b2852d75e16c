"""One model in several formats: size, distance from the original, speed and memory, side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sis_core.errors import SourceError
from sis_core.machine.memory import MIB
from sis_core.quant import QuantFormat
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel, load
from sis_core.workbench.benchmark import Case, Runner, summarise
from sis_core.workbench.evaluate import evaluate, tensor_errors
from sis_core.workbench.quantizer import Plan, make_plan, quantize_file

log = logging.getLogger(__name__)

UNSTEADY = 1.5  # runs of the same work that differ by more than this say little


@frozen
class Settings:
    """How formats are compared.

    Attributes:
        n_ctx, n_chunks: of the text, as for `evaluate`.
        n_prompt, n_generate, repeat: tokens for the speed of prompts and of generation, and runs of each.
        run: options of `load`: backend, n_threads, kv_type.
        pure: one format for every matrix, also the head.
        requantize: accept an original that is quantised.
        fallbacks: for rows that a format's blocks do not divide.
    """

    n_ctx: int = 512
    n_chunks: int | None = None
    n_prompt: int = 128
    n_generate: int = 32
    repeat: int = 3
    run: dict[str, Any] = field(factory=dict)
    pure: bool = False
    requantize: bool = False
    fallbacks: tuple[QuantFormat, ...] = ()


@frozen
class FormatRow:
    """One format; the original is the first row, with no distance.

    Attributes:
        bits: per weight, over all of the file's values.
        mib: of tensors in the file.
        memory_mib: of weights as the backend keeps them, and a full cache of ``n_ctx`` tokens.
        perplexity, kl, top1: as `evaluate` gives them.
        rmse: the largest relative error of a tensor.
        pp, tg: tokens a second of a prompt and of generation, medians.
        tg_low, tg_high: the slowest and the fastest run of generation.
    """

    format: str
    bits: float
    mib: float
    memory_mib: float
    perplexity: float
    kl: float | None
    top1: float | None
    rmse: float | None
    pp: float
    tg: float
    tg_low: float
    tg_high: float


def compare_formats(
    path: Path,
    formats: Sequence[str],
    text: str,
    folder: Path,
    registry: Registry,
    settings: Settings,
    *,
    where: str = "text",
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[FormatRow]:
    """Rows in the order of ``formats``, the original first. Files are made in ``folder`` and removed one by one.

    Every format is planned before the first is made, so that a wrong one costs no time.

    Raises:
        SisError: as `make_plan`, `quantize_file` and `evaluate` do.
    """
    with _open(path, registry, settings) as original:
        plans = [_plan(original, name, registry, settings) for name in formats]
        tokens = original.tokenize(text)
        yield _row(original, "original", _bits(original), tokens, None, settings, where)
        for i, plan in enumerate(plans):
            if progress:
                progress(plan.label, i, len(plans))
            made = folder / f"{i}.gguf"
            try:
                quantize_file(original.file, made, plan, n_threads=settings.run.get("n_threads"))
                with _open(made, registry, settings) as model:
                    yield _row(model, plan.label, plan.bits_per_weight, tokens, original, settings, where)
            finally:
                made.unlink(missing_ok=True)


def _open(path: Path, registry: Registry, settings: Settings) -> LanguageModel:
    n_ctx = max(settings.n_ctx, settings.n_prompt, settings.n_generate)
    return load(path, registry=registry, n_ctx=n_ctx, **settings.run)


def _plan(original: LanguageModel, name: str, registry: Registry, settings: Settings) -> Plan:
    plan = make_plan(
        original.file,
        registry,
        name,
        fallbacks=settings.fallbacks,
        pure=settings.pure,
        requantize=settings.requantize,
    )
    if notes := [tensor for tensor in plan.tensors if tensor.note]:
        log.warning("%s: %d tensors in another format, as %s: %s", plan.label, len(notes), notes[0].name, notes[0].note)
    return plan


def _bits(model: LanguageModel) -> float:
    tensors = tuple(model.file.tensors.values())
    n_values = sum(_n_values(info.shape) for info in tensors)
    return 8 * sum(info.n_bytes for info in tensors) / max(1, n_values)


def _n_values(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def _row(
    model: LanguageModel,
    name: str,
    bits: float,
    tokens: list[int],
    original: LanguageModel | None,
    settings: Settings,
    where: str,
) -> FormatRow:
    score = evaluate(model, tokens, n_ctx=settings.n_ctx, n_chunks=settings.n_chunks, reference=original, where=where)
    runner = Runner(model)
    speeds = []
    for case in (Case("pp", settings.n_prompt), Case("tg", settings.n_generate)):
        runner.warm_up(case)
        speeds.append(summarise([runner.sample(case) for _ in range(settings.repeat)]))
    prompt, generation = speeds
    if generation.high > UNSTEADY * generation.low:
        log.warning(
            "%s: %s generates from %.0f to %.0f tokens a second: something else is running; compare no speeds",
            where, name, generation.low, generation.high,
        )  # fmt: skip
    errors = tensor_errors(model, original) if original else []
    n_bytes = sum(info.n_bytes for info in model.file.tensors.values())
    cache = model.forward.cache_nbytes(model.options.kv_type, settings.n_ctx)
    return FormatRow(
        name,
        bits,
        n_bytes / MIB,
        (model.fit.plan.weights + model.fit.plan.packed + cache) / MIB,
        score.perplexity,
        score.divergence.kl_mean if score.divergence else None,
        score.divergence.top1 if score.divergence else None,
        errors[0].relative if errors else None if original is None else 0.0,
        prompt.median,
        generation.median,
        generation.low,
        generation.high,
    )


def new_figure(path: Path) -> Any:
    """An empty matplotlib figure for ``path``; SourceError when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise SourceError(
            "plots need matplotlib, which is not installed", where=str(path), fix="`pip install 'sis-core[plot]'`"
        ) from None
    return Figure(figsize=(9, 4), layout="constrained")


def draw_plot(rows: Sequence[FormatRow], path: Path, title: str) -> None:
    """KL divergence over bits a weight, and speed, as PNG, SVG or PDF by the name of the file.

    Raises:
        SourceError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure(path)
    left, right = figure.subplots(1, 2)
    made = [row for row in rows if row.kl is not None]
    least = min((row.kl for row in made if row.kl), default=1e-3) / 10  # where zero lies: a logarithmic axis has none
    for row, marker in zip(made, cycle("os^vD*Pp<>Xh"), strict=False):
        left.plot(row.bits, max(row.kl or 0.0, least), marker, label=row.format, markersize=7)
    if made:
        left.legend(fontsize="small")
    left.set(xlabel="bits a weight", ylabel="KL divergence (nats a token)", yscale="log")
    left.grid(alpha=0.3)
    left.margins(0.1)
    spread = [[row.tg - row.tg_low for row in rows], [row.tg_high - row.tg for row in rows]]
    right.barh([row.format for row in rows], [row.tg for row in rows], xerr=spread, capsize=3)
    right.invert_yaxis()
    right.set(xlabel="tokens/s, generation")
    figure.suptitle(title)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"cannot be written: {error}", where=str(path), fix="name a .png, .svg or .pdf file"
        ) from None
