"""Measuring a trained file: `python -m train_tiny.evaluate TEXT_DIR MODEL.gguf` prints a report in Markdown."""

import lzma
import math
from collections.abc import Callable
from pathlib import Path

import click
import pyppmd
import torch
from torch.nn import functional as F

from train_tiny.export import read_gguf, requantised
from train_tiny.model import TinyLlama
from train_tiny.sample import draw_stories
from train_tiny.text import Stories, read_stories
from train_tiny.vocabulary import Vocabulary


@torch.inference_mode()
def story_bits(model: TinyLlama, ids: list[int]) -> float:
    """Bits the model needs for ids[1:] (the text and its end) after ids[0] (the mark of the beginning).

    A long story is read in windows of n_ctx tokens that overlap by half, so that after the first window every token
    is predicted from at least n_ctx / 2 tokens before it, and every token is counted exactly once.
    """
    n_ctx = model.shape.n_ctx
    line, nats = torch.tensor(ids), 0.0
    for start in range(0, max(1, len(ids) - 1 - n_ctx // 2), n_ctx // 2):
        window, targets = line[start : start + n_ctx], line[start + 1 : start + n_ctx + 1]
        fresh = 0 if start == 0 else n_ctx // 2
        logits = model(window[None, : len(targets)])[0, fresh:]
        nats += F.cross_entropy(logits.double(), targets[fresh:], reduction="sum").item()
    return nats / math.log(2)


def bits_per_byte(model: TinyLlama, vocabulary: Vocabulary, stories: list[str]) -> float:
    """Bits for all stories, their ends included, over the bytes of their text (the ends count as no byte)."""
    model.eval()
    bits = sum(story_bits(model, vocabulary.encode(story)) for story in stories)
    return bits / sum(len(story.encode("utf-8")) for story in stories)


def as_bytes(stories: list[str]) -> bytes:
    """Stories as a compressor gets them, with one zero byte at the end of each."""
    return b"".join(story.encode("utf-8") + b"\0" for story in stories)


def xz(data: bytes) -> int:
    """Bytes that `xz -9` needs."""
    return len(lzma.compress(data, preset=9))


def ppmd(data: bytes) -> int:
    """Bytes that PPMd (variant H, 512 MiB) needs with the best of several orders."""
    return min(len(pyppmd.compress(data, max_order=order, mem_size=512 << 20)) for order in (4, 5, 6, 8, 12))


def compressed_bits(compress: Callable[[bytes], int], stories: Stories) -> tuple[float, float]:
    """Bits per byte of the held-out stories alone, and as the part they add behind the training stories."""
    seen, new = as_bytes(stories.train), as_bytes(stories.held_out)
    size = len(new) - len(stories.held_out)
    return 8 * compress(new) / size, 8 * (compress(seen + new) - compress(seen)) / size


def verbatim_share(texts: list[str], train: list[str], width: int = 50) -> float:
    """The share of all `width`-byte windows of the texts that stand word for word in a training story."""
    windows: list[bytes] = []
    for text in texts:
        raw = text.encode("utf-8")
        windows += [raw[i : i + width] for i in range(len(raw) - width + 1)]
    wanted, seen = set(windows), as_bytes(train)
    found = {seen[i : i + width] for i in range(len(seen) - width + 1) if seen[i : i + width] in wanted}
    return sum(window in found for window in windows) / max(1, len(windows))


@click.command()
@click.argument("text_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--types", default="Q8_0,Q4_0", show_default=True, help="Also measure the matrices rounded to these.")
@click.option("--samples", default=100, show_default=True, help="Stories to draw for the memorisation figure.")
@click.option("--show", default=10, show_default=True, help="Of those, print the first so many.")
@click.option("--seed", default=1, show_default=True)
def main(text_dir: Path, file: Path, types: str, samples: int, show: int, seed: int) -> None:
    """Measure FILE, a model that train_tiny wrote, on the text that it was trained on."""
    stories = read_stories(text_dir)
    model, vocabulary = read_gguf(file)
    click.echo("| held-out text | bits per byte |\n|---|---|")
    click.echo(f"| {file.name} | {bits_per_byte(model, vocabulary, stories.held_out):.4f} |")
    for kind in filter(None, types.split(",")):
        click.echo(
            f"| rounded to {kind} | {bits_per_byte(requantised(model, kind), vocabulary, stories.held_out):.4f} |"
        )
    for name, compress in (("xz -9", xz), ("PPMd", ppmd)):
        alone, primed = compressed_bits(compress, stories)
        click.echo(f"| {name} | {alone:.3f} |\n| {name}, after the training text | {primed:.3f} |")
    drawn = draw_stories(model, vocabulary, samples, temperature=0.8, seed=seed)
    click.echo(f"\n50-byte windows of {samples} samples found in the training text: ", nl=False)
    click.echo(f"{verbatim_share(drawn, stories.train):.2%}", nl=False)
    click.echo(f" (of the held-out stories: {verbatim_share(stories.held_out, stories.train):.2%})")
    for number, text in enumerate(drawn[:show], 1):
        click.echo(f"\n### Sample {number}\n\n{text}")


if __name__ == "__main__":
    main()
