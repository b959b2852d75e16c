"""``sis eval``"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import click

from sis_core.cli.common import json_line, read_text, table
from sis_core.cli.measuring import open_for, run_options, take
from sis_core.cli.naming import model_named
from sis_core.cli.progress import progress_bar
from sis_core.cli.report import cell
from sis_core.errors import SourceError
from sis_core.texts.language_model import LanguageModel
from sis_core.workbench.evaluate import Score, TensorError, evaluate, tensor_errors

DEFAULT_CTX = 512


@click.command("eval")
@model_named(required=True, bare=True)
@click.option("--against", metavar="REF", help="Compare with this model: distributions and weights.")
@click.option("--text", "text_file", metavar="FILE", help="The text to score; without it only weights are compared.")
@click.option("--tasks", metavar="NAMES", help="Tasks of lm-eval, or folders of tasks in YAML, with commas between.")
@click.option("--ctx", "n_ctx", type=click.IntRange(4), metavar="N",
              help=f"Tokens in a chunk, of which the second half is scored (default: {DEFAULT_CTX}); "
              "with --tasks the context (default: the model's).")  # fmt: skip
@click.option("--chunks", "n_chunks", type=click.IntRange(1), metavar="N", help="Only the first N chunks.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions of each task.")
@click.option("--shots", "n_shot", type=click.IntRange(0), metavar="N",
              help="Examples before each question (default: what the task says).")  # fmt: skip
@click.option("--worst", type=click.IntRange(0), default=5, show_default=True, help="Tensors to list.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with every tensor.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    against: str | None,
    text_file: str | None,
    tasks: str | None,
    n_ctx: int | None,
    n_chunks: int | None,
    limit: int | None,
    n_shot: int | None,
    worst: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Perplexity of MODEL on a text and, with --against, how far it is from another model.

    The perplexity is that of llama.cpp's perplexity tool with the same --ctx. With --tasks MODEL answers the questions
    of the Language Model Evaluation Harness.
    """
    chosen = take(options, "eval")
    if tasks is not None:
        if text_file or against:
            raise click.UsageError("--tasks stands alone, without --text and --against")
        run_tasks = _harness()
        with open_for(ctx, model, chosen, n_ctx) as opened, progress_bar() as update:
            names = [name for name in tasks.split(",") if name]
            scores = run_tasks(opened, names, n_shot=n_shot, limit=limit, progress=update)
            _print_tasks(opened, scores, as_json)
        return
    if not text_file and not against:
        raise SourceError(
            "there is nothing to measure", where="sis eval", fix="give --text FILE, --against REF or both, or --tasks"
        )
    n_ctx = n_ctx or DEFAULT_CTX
    text = read_text(text_file) if text_file else None
    with ExitStack() as stack:
        opened = stack.enter_context(open_for(ctx, model, chosen, n_ctx))
        reference = stack.enter_context(open_for(ctx, against, chosen, n_ctx)) if against else None
        score, errors = None, []
        with progress_bar() as update:
            if text is not None:
                tokens = opened.tokenize(text)
                score = evaluate(
                    opened, tokens, n_ctx=n_ctx, reference=reference, n_chunks=n_chunks,
                    where=text_file or "", progress=update,
                )  # fmt: skip
            if reference is not None:
                errors = tensor_errors(opened, reference, update)
        if as_json:
            result: dict[str, Any] = {"model": str(opened.path), "backend": opened.backend}
            result |= {"score": attrs.asdict(score) if score else None}
            json_line(result | {"tensors": [attrs.asdict(error) for error in errors]})
            return
        _print(opened.backend, score, errors[:worst], reference is not None)


def _harness() -> Any:
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's own bars; tqdm reads it when it is imported
    try:
        from sis_core.workbench.harness import run_tasks
    except ImportError:
        raise SourceError(
            "tasks are those of lm-eval, which is not installed",
            where="sis eval --tasks",
            fix="`pip install 'sis-core[tasks]'`",
        ) from None
    return run_tasks


def _print_tasks(opened: LanguageModel, scores: Sequence[Any], as_json: bool) -> None:
    if as_json:
        rows = [attrs.asdict(score) for score in scores]
        json_line({"model": str(opened.path), "backend": opened.backend, "tasks": rows})
        return
    better = {True: "↑", False: "↓", None: ""}
    table(
        ["task", "filter", "shots", "questions", "metric", "", "value", "±"],
        [
            (
                s.task,
                s.filter,
                cell(s.n_shot),
                cell(s.n),
                s.metric,
                better[s.higher_is_better],
                cell(s.value),
                cell(s.error),
            )
            for s in scores
        ],
    )


def _print(backend: str, score: Score | None, errors: list[TensorError], compared: bool) -> None:
    if score:
        place = f"{score.n_tokens} tokens of {score.n_chunks} chunks of {score.n_ctx}, on {backend}"
        click.echo(f"perplexity {score.perplexity:.4f} ± {score.error:.4f} ({place})")
    if score and (d := score.divergence):
        click.echo(f"perplexity of the reference {d.reference_perplexity:.4f}")
        click.echo(f"KL divergence {d.kl_mean:.6f} ± {d.kl_error:.6f} nats a token")
        click.echo(f"  median {cell(d.kl_median)}, 99 % below {cell(d.kl_p99)}, largest {cell(d.kl_max)}")
        click.echo(f"same likeliest token {100 * d.top1:.2f} %")
        click.echo(f"probability of the text's token: RMS difference {100 * d.p_rms:.3f} %")
    if compared and not errors:
        click.echo("every tensor that both have is equal")
    if errors:
        table(
            ["worst tensors", "format", "relative RMSE", "RMSE", "largest error"],
            [(e.name, e.type_name, cell(e.relative), cell(e.rmse), cell(e.max_error)) for e in errors],
        )
