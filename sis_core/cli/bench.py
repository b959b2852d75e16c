"""``sis bench``"""

from __future__ import annotations

import platform
from contextlib import closing, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import click

from sis_core.cli.measuring import open_for, run_options, take
from sis_core.cli.naming import model_named
from sis_core.cli.progress import progress_bar
from sis_core.cli.report import FORMATS, emit
from sis_core.texts.language_model import LanguageModel
from sis_core.workbench.benchmark import BinaryPeer, Case, Peer, PythonPeer, Runner, Summary, make_cases, summarise


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isascii() and part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is not a list like 1,8", param, ctx)
        return tuple(int(part) for part in parts)


@click.command("bench")
@model_named(bare=True)
@click.option("-p", "--prompt", "prompts", type=Numbers(), default="512", show_default=True, metavar="N,N…",
              help="Tokens of a prompt; 0 for none.")  # fmt: skip
@click.option("-n", "--generate", "lengths", type=Numbers(), default="128", show_default=True, metavar="N,N…",
              help="Tokens to generate; 0 for none.")  # fmt: skip
@click.option("--batch", "batches", type=Numbers(), default="1", show_default=True, metavar="N,N…",
              help="Sequences that share every step.")  # fmt: skip
@click.option("--depth", "depths", type=Numbers(), default="0", show_default=True, metavar="N,N…",
              help="Tokens in the context before the clock starts.")  # fmt: skip
@click.option("-r", "--repeat", type=click.IntRange(1), default=5, show_default=True, help="Runs of each.")
@click.option("--vs", type=click.Choice(["llama.cpp"]), help="Run llama-cpp-python in turn with sis.")
@click.option("--vs-python", metavar="PYTHON", help="The interpreter that has llama-cpp-python.")
@click.option("--vs-binary", metavar="PROGRAM", help="A llama-bench program.")
@run_options
@click.option("-o", "--output", "form", type=click.Choice(FORMATS), default="table", help="How to print the figures.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    prompts: tuple[int, ...],
    lengths: tuple[int, ...],
    batches: tuple[int, ...],
    depths: tuple[int, ...],
    repeat: int,
    vs: str | None,
    vs_python: str | None,
    vs_binary: str | None,
    form: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Tokens a second of MODEL: prompts (pp) and generation (tg), as llama-bench measures them.

    With a peer, each row is measured on both in the same sitting, with the same file and as many threads.
    """
    chosen = take(options, "bench")
    if 0 in batches:
        raise click.BadParameter("a batch has at least one sequence", param_hint="--batch")
    cases = make_cases(prompts, lengths, batches, depths)
    with open_for(ctx, model, chosen, max(case.n_ctx for case in cases)) as opened:
        peer = _peer(opened.path, chosen["n_threads"], vs, vs_python, vs_binary)
        with closing(peer) if peer else nullcontext(), progress_bar() as update:
            rows = []
            for i, case in enumerate(cases):
                update(case.name, i, len(cases))
                rows.append(_measure(Runner(opened), peer, case, repeat))
        columns = list(rows[0])
        about = _about(opened, peer)
        form = "json" if as_json else form
        if form in ("table", "md"):
            click.echo(", ".join(f"{key} {value}" for key, value in about.items() if value) + "\n", err=form == "table")
        emit(form, columns, rows, about)


def _peer(path: Path, n_threads: int, vs: str | None, python: str | None, binary: str | None) -> Peer | None:
    if binary:
        return BinaryPeer(path, n_threads, binary)
    return PythonPeer(path, n_threads, python) if vs or python else None


def _measure(runner: Runner, peer: Peer | None, case: Case, repeat: int) -> dict[str, Any]:
    runner.warm_up(case)
    if not isinstance(peer, PythonPeer):
        ours, theirs = [runner.sample(case) for _ in range(repeat)], peer.samples(case, repeat) if peer else None
    else:  # run by run, so that a slow minute of the machine slows both
        ours, theirs = [], []
        for _ in range(repeat):
            ours.append(runner.sample(case))
            theirs += peer.samples(case, 1) or []
    row: dict[str, Any] = {"test": case.name, **_figures("", summarise(ours)), "runs": repeat}
    if peer is not None:
        found = summarise(theirs) if theirs else None
        row |= _figures("peer ", found)
        row["ratio"] = row["t/s"] / found.median if found else None
    return row


def _figures(prefix: str, summary: Summary | None) -> dict[str, float | None]:
    names = {"t/s": "median", "±": "spread", "min": "low", "max": "high"}
    values = attrs.asdict(summary) if summary else {}
    return {prefix + shown: values.get(name) for shown, name in names.items()}


def _about(model: LanguageModel, peer: Peer | None) -> dict[str, Any]:
    return {
        "model": model.path.name,
        "backend": model.backend,
        "layers": " | ".join(dict.fromkeys(model.grains)),
        "threads": model.options.n_threads,
        "kv": model.options.kv_type,
        "sis": metadata.version("sis-core"),
        "machine": platform.machine(),
        "peer": peer.name if peer else None,
    }
