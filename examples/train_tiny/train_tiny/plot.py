"""Drawing the loss curve: `python -m train_tiny.plot RUN_DIR/log.csv [NEXT_RUN_DIR/log.csv ...] loss.svg`."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import click
import matplotlib

matplotlib.use("Agg")  # no screen is needed to write a file
from matplotlib import pyplot


def read_logs(logs: Iterable[Path]) -> list[dict[str, str]]:
    """The lines of one run after the other; the tokens of each are counted on from the run before."""
    lines: list[dict[str, str]] = []
    for log in logs:
        before = int(lines[-1]["tokens"]) if lines else 0
        with log.open(newline="") as file:
            lines += [line | {"tokens": str(before + int(line["tokens"]))} for line in csv.DictReader(file)]
    return lines


def draw_logs(logs: Iterable[Path], out: Path, tokens_per_byte: float) -> None:
    """Draw training and held-out loss, both in bits per byte, over the tokens read."""
    lines = read_logs(logs)
    held_out = [line for line in lines if line["held_out_bits_per_byte"]]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    millions = [int(line["tokens"]) / 1e6 for line in lines]
    bits = [float(line["train_nats"]) / math.log(2) * tokens_per_byte for line in lines]
    axes.plot(millions, bits, label="training", linewidth=1)
    axes.plot(
        [int(line["tokens"]) / 1e6 for line in held_out],
        [float(line["held_out_bits_per_byte"]) for line in held_out],
        "o-",
        markersize=3,
        label="held out (rows without earlier context)",
    )
    axes.set(xlabel="million tokens read", ylabel="bits per byte", ylim=(None, min(2.5, max(bits))))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out)


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tokens-per-byte", default=0.2616, show_default=True, help="Of the training text.")
def main(logs: tuple[Path, ...], out: Path, tokens_per_byte: float) -> None:
    """Draw LOGS, the log.csv of a run and of those that went on from it, as the picture OUT."""
    draw_logs(logs, out, tokens_per_byte)


if __name__ == "__main__":
    main()
