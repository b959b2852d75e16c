"""``sis quantize``"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from sis_core.cli.common import human_bytes, json_line, model_path, registry_of, table
from sis_core.cli.completion import completing, format_names, model_names
from sis_core.cli.options import load_options
from sis_core.cli.progress import progress_bar
from sis_core.gguf_file import GGUFFile
from sis_core.workbench.quantizer import Importance, Plan, Result, make_plan, parse_rule, quantize_file, with_sides
from sis_core.workbench.quantizer.plan import find_format
from sis_core.workbench.quantizer.run import check_target

log = logging.getLogger(__name__)


@click.command("quantize")
@click.argument("names", nargs=-1, metavar="[IN] OUT")
@click.option("-m", "--model", metavar="FILE", shell_complete=completing(model_names, files=True),
              help="The model, in place of IN.")  # fmt: skip
@click.option("--to", "target_format", required=True, metavar="FORMAT", shell_complete=completing(format_names),
              help="Any installed format that can encode, or a mix: q4_k_s, q4_k_m, q5_k_s, q5_k_m.")  # fmt: skip
@click.option("--tensor", "rules", multiple=True, metavar="PATTERN=FORMAT",
              help="A format by name ('blk.*.ffn_down.weight=Q6_K'), or 'keep'; the first match wins.")  # fmt: skip
@click.option("--fallback", "fallbacks", multiple=True, metavar="FORMAT",
              help="For tensors whose rows do not divide into the format's blocks; the first that fits.")  # fmt: skip
@click.option("--pure", is_flag=True, help="The same format for every matrix, also for the head.")
@click.option("--imatrix", metavar="FILE", help="Importance of columns, from `sis imatrix`.")
@click.option("--requantize", is_flag=True, help="Accept an input that is quantised already.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@load_options(("n_threads",))
@click.option("--dry-run", is_flag=True, help="Show what each tensor would become, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    model: str | None,
    target_format: str,
    rules: tuple[str, ...],
    fallbacks: tuple[str, ...],
    pure: bool,
    imatrix: str | None,
    requantize: bool,
    force: bool,
    n_threads: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the model IN to OUT with its weights in another format.

    Killed or interrupted, the same command goes on where it was. OUT appears when it is complete.
    """
    given = [*([] if model is None else [model]), *names]
    if len(given) != 2:
        raise click.UsageError("name the model and the file to write: sis quantize -m in.gguf out.gguf --to q4_k_m")
    source, target = given[0], Path(given[1])
    registry = registry_of(ctx)
    with GGUFFile.open(model_path(ctx, source)) as file:
        plan = make_plan(
            file,
            registry,
            target_format,
            rules=[parse_rule(registry, text) for text in rules],
            fallbacks=[find_format(registry, name, "--fallback") for name in fallbacks],
            pure=pure,
            requantize=requantize,
        )
        importance = Importance.read(imatrix) if imatrix else None
        check_target(file, target, force)
        _say(plan, importance)
        if dry_run:
            _print(with_sides(plan, importance), None, as_json)
            return
        try:
            with progress_bar() as update:
                result = quantize_file(
                    file, target, plan, importance=importance, n_threads=n_threads, force=force, progress=update
                )
        except KeyboardInterrupt:
            click.echo("\nsis: interrupted; the same command goes on from here", err=True)
            raise
        _print(result.plan, result, as_json)


def _say(plan: Plan, importance: Importance | None) -> None:
    """A line for whatever is not as it was asked for."""
    for tensor in plan.tensors:
        if tensor.note:
            log.warning("%s: %s", tensor.name, tensor.note)
    formats = {tensor.format.name: tensor.format for tensor in plan.tensors if tensor.format}
    deaf = sorted(name for name, format in formats.items() if not format.uses_importance)
    if importance and deaf:
        log.warning("--imatrix changes nothing for %s, which cannot weigh columns", ", ".join(deaf))


def _print(plan: Plan, result: Result | None, as_json: bool) -> None:
    if as_json:
        json_line(
            {
                "path": str(result.path) if result else None,
                "bytes": result.n_bytes if result else plan.n_bytes,
                "bits_per_weight": plan.bits_per_weight,
                "seconds": result.seconds if result else None,
                "resumed": result.n_resumed if result else 0,
                "tensors": [
                    {"name": t.name, "from": t.info.type_name, "to": t.type_name, "bytes": t.n_bytes, "note": t.note}
                    for t in plan.tensors
                ],
            }
        )
        return
    if result is None:
        rows = [(t.name, " × ".join(map(str, t.info.shape)), t.info.type_name, t.type_name) for t in plan.tensors]
        table(["tensor", "shape", "from", "to"], rows)
    size = f"{human_bytes(result.n_bytes if result else plan.n_bytes)}, {plan.bits_per_weight:.2f} bits a weight"
    where, took = (str(result.path), f", {result.seconds:.1f} s") if result else ("would be", "")
    click.echo(f"{where}: {plan.label}, {len(plan.tensors)} tensors, {size}{took}")
