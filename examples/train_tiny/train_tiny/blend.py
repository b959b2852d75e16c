"""Between two models: `python -m train_tiny.blend CHAT.gguf STORIES.gguf 0.2 OUT.gguf`.

A model that went on from another lies close to it, and a point on the line between them can be better than both: it
forgets less of what the first could do (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
https://arxiv.org/abs/2109.01903).

After several passes over the same text a model is also too sure of itself. Its logits divided by a temperature a little
above one fit text that it has not seen better (Guo et al. 2017, "On Calibration of Modern Neural Networks",
https://arxiv.org/abs/1706.04599); since the head is linear, the last norm's weights take that into the file.
"""

from pathlib import Path

import click
import torch

from train_tiny.chat import TEMPLATE, USER
from train_tiny.export import read_gguf, write_gguf
from train_tiny.model import TinyLlama


def blend(model: TinyLlama, before: TinyLlama, share: float, temperature: float = 1.0) -> TinyLlama:
    """A copy of `model` whose weights are `share` of the way back to `before`, its logits divided by `temperature`.

    Tokens that only `model` has stay as they are.
    """
    copy, old = model.with_context(model.shape.n_ctx), before.state_dict()
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            common = parameter[: len(old[name])]
            common.lerp_(old[name], share)
        copy.output_norm.weight.div_(temperature)
    return copy


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("share", type=click.FloatRange(0, 1))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--temperature", default=1.0, show_default=True, help="What the logits are divided by, in the file.")
@click.option("--type", "kind", default="Q8_0", show_default=True, help="Type of the written matrices, such as F32.")
@click.option("--name", help="general.name of the file [the name of OUT].")
@click.option("--author", default="", help="general.author of the file.")
@click.option("--licence", default="", help="general.license of the file.")
@click.option("--describe", default="A small story model, trained from nothing.", help="general.description.")
def main(
    file: Path,
    before: Path,
    share: float,
    out: Path,
    temperature: float,
    kind: str,
    name: str | None,
    author: str,
    licence: str,
    describe: str,
) -> None:
    """Write a model that lies SHARE of the way from FILE back to BEFORE, the file that FILE went on from."""
    (model, vocabulary), (old, tokens) = read_gguf(file), read_gguf(before)
    if vocabulary.tokens()[: tokens.size] != tokens.tokens():
        raise click.UsageError(f"{file.name} did not go on from {before.name}: their tokens differ")
    write_gguf(
        blend(model, old, share, temperature),
        vocabulary,
        out,
        kind,
        name=name or out.stem,
        author=author,
        licence=licence,
        description=describe,
        template=TEMPLATE if vocabulary.tokenizer.token_to_id(USER) else "",
    )
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
