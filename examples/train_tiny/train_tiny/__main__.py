"""Command line: `python -m train_tiny TEXT_DIR OUT.gguf --minutes 60`."""

from dataclasses import replace
from pathlib import Path

import click
import torch

from train_tiny.chat import ASSISTANT, TEMPLATE, USER
from train_tiny.export import read_gguf, write_gguf
from train_tiny.held_out import read_held_out
from train_tiny.model import Shape
from train_tiny.talk_run import TalkRun
from train_tiny.text import read_stories
from train_tiny.train import Plan, Run
from train_tiny.vocabulary import load_vocabulary, train_vocabulary

FEW_STEPS = 100


@click.command()
@click.argument("text_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--minutes", default=60.0, show_default=True, help="How long to train, by the clock.")
@click.option("--steps", type=int, help="End after this many steps, if the time is not over before.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Checkpoints go here [OUT.run].")
@click.option("--type", "kind", default="Q8_0", show_default=True, help="Type of the written matrices, such as F32.")
@click.option("--from", "start", type=click.Path(exists=True, path_type=Path), help="Go on from this file's weights.")
@click.option(
    "--talks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also learn to answer requests; none that FILE, of train_tiny.held_out, names the nouns of.",
)
@click.option("--talk-share", default=0.6, show_default=True, help="Share of the rows that are talks.")
@click.option("--vocab", default=4096, show_default=True, help="Tokens in the vocabulary.")
@click.option("--layers", default=6, show_default=True, help="Layers of the model.")
@click.option("--context", default=512, show_default=True, help="Tokens the model sees at once.")
@click.option("--rows", default=16, show_default=True, help="Rows of CONTEXT tokens in one step.")
@click.option("--rate", default=1.0, show_default=True, help="Share of the usual learning rates, at their peak.")
@click.option("--seed", default=1, show_default=True, help="Of the order of the stories and of the first weights.")
@click.option("--dropout", default=0.0, show_default=True, help="Share of each layer's output that is dropped.")
@click.option("--threads", type=int, help="Processor threads to use [all cores].")
@click.option("--bf16/--f32", default=True, show_default=True, help="Matrix products in bfloat16 or in float32.")
@click.option("--compile/--no-compile", default=True, show_default=True, help="Compile (needs a C++ compiler).")
@click.option("--name", help="general.name of the file [the name of OUT].")
@click.option("--author", default="", help="general.author of the file.")
@click.option("--licence", default="", help="general.license of the file.")
@click.option("--describe", default="A small story model, trained from nothing.", help="general.description.")
def main(
    text_dir: Path,
    out: Path,
    minutes: float,
    steps: int | None,
    work: Path | None,
    kind: str,
    start: Path | None,
    talks: Path | None,
    talk_share: float,
    vocab: int,
    layers: int,
    context: int,
    rows: int,
    rate: float,
    seed: int,
    dropout: float,
    threads: int | None,
    bf16: bool,
    compile: bool,
    name: str | None,
    author: str,
    licence: str,
    describe: str,
) -> None:
    """Train a small story model on the .txt files of TEXT_DIR and write it to OUT.

    Started again after an interruption, it goes on from the last checkpoint.
    """
    if threads:
        torch.set_num_threads(threads)
    if talks and not start:
        raise click.UsageError("--talks teaches a model that can tell stories: name its file with --from")
    folder = work or out.with_suffix(".run")
    folder.mkdir(parents=True, exist_ok=True)
    stories = read_stories(text_dir)
    click.echo(f"{len(stories.train)} stories to train on, {len(stories.held_out)} held out")
    tokenizer_file = folder / "tokenizer.json"
    if start:
        first, vocabulary = read_gguf(start)
        if talks:
            vocabulary = vocabulary.with_control([USER, ASSISTANT])
            first = first.with_vocabulary(vocabulary.size, like=vocabulary.bos)
        shape = replace(first.shape, n_ctx=context)
    else:
        if not tokenizer_file.exists():
            train_vocabulary(stories.train, vocab).save(tokenizer_file)
        vocabulary = load_vocabulary(tokenizer_file)
        shape = Shape(n_vocab=vocabulary.size, n_layer=layers, n_ctx=context)
    plan = Plan(
        minutes=minutes,
        max_steps=steps,
        rows=rows,
        muon_lr=rate * Plan.muon_lr,
        adam_lr=rate * Plan.adam_lr,
        dropout=dropout,
        seed=seed,
        bf16=bf16,
        compile=compile,
    )
    if talks:
        run = TalkRun(stories, vocabulary, shape, plan, folder, read_held_out(talks), talk_share)
    else:
        run = Run(stories, vocabulary, shape, plan, folder)
    if start:
        run.model.load_state_dict(first.state_dict())
    run.train()
    if run.step < FEW_STEPS:
        click.echo(
            f"only {run.step} steps were made: this model has learnt next to nothing; give it more --minutes", err=True
        )
    title = name or out.stem
    write_gguf(
        run.model,
        vocabulary,
        out,
        kind,
        name=title,
        author=author,
        licence=licence,
        description=describe,
        template=TEMPLATE if talks else "",
    )
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
