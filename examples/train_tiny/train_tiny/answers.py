"""Measuring how a model answers: `python -m train_tiny.answers MODEL.gguf held_out_requests.tsv`."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from train_tiny.chat import ASSISTANT, USER
from train_tiny.export import read_gguf
from train_tiny.held_out import HeldOut, read_held_out
from train_tiny.model import TinyLlama
from train_tiny.nouns import CLASS_OF, pattern
from train_tiny.sample import Stepper
from train_tiny.talks import people_of
from train_tiny.vocabulary import Vocabulary

MOST = 300


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: from the `top_k` likeliest, of those the likeliest that make up `top_p`."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    seed: int = 1


@dataclass(frozen=True)
class Answer:
    """A reply and whether the model ended it itself."""

    text: str
    ended: bool


def choose(logits: torch.Tensor, how: Sampling, random: torch.Generator) -> torch.Tensor:
    """Logits (B, n_vocab) to one token id each (B,)."""
    best, ids = logits.topk(how.top_k, dim=-1)
    shares = torch.softmax(best, dim=-1)
    best[shares.cumsum(-1) - shares > how.top_p] = -torch.inf
    shares = torch.softmax(best / how.temperature, dim=-1)
    return ids.gather(1, torch.multinomial(shares, 1, generator=random))[:, 0]


def prompt_of(turns: list[str], vocabulary: Vocabulary) -> list[int]:
    """Token ids of requests and replies in turn, up to where the next reply begins."""
    user, assistant = vocabulary.tokenizer.token_to_id(USER), vocabulary.tokenizer.token_to_id(ASSISTANT)
    ids = [vocabulary.bos]
    for i, text in enumerate(turns):
        ids += [user if i % 2 == 0 else assistant, *vocabulary.tokenizer.encode(text).ids]
        ids += [vocabulary.eos] if i % 2 else []
    return [*ids, assistant]


def answer(model: TinyLlama, vocabulary: Vocabulary, talks: list[list[str]], how: Sampling) -> list[Answer]:
    """The model's reply to each talk, of at most 300 tokens; all rows are run together."""
    random = torch.Generator().manual_seed(how.seed)
    prompts = [prompt_of(turns, vocabulary) for turns in talks]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    ids = torch.full((len(prompts), int(lengths.max()) + MOST), vocabulary.eos)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    stepper, ended = Stepper(model, len(prompts)), torch.zeros(len(prompts), dtype=torch.bool)
    for position in range(1, ids.shape[1]):
        chosen = choose(stepper.step(ids[:, position - 1]), how, random)
        fresh = (position >= lengths) & (position < lengths + MOST) & ~ended
        ids[fresh, position] = chosen[fresh]
        ended |= fresh & (chosen == vocabulary.eos)
        if ended.all():
            break
    replies = [row[length : length + MOST].tolist() for row, length in zip(ids, lengths.tolist(), strict=True)]
    return [Answer(vocabulary.decode(reply), end) for reply, end in zip(replies, ended.tolist(), strict=True)]


def keeps(text: str, words: list[str]) -> float:
    """The share of the words that the text has."""
    forms = [pattern(word) if word in CLASS_OF else re.compile(rf"\b{re.escape(word)}\b") for word in words]
    return sum(form.search(text) is not None for form in forms) / max(1, len(words))


def persons(item: HeldOut, reply: str) -> list[str]:
    """Who a story is about: the requested nouns that the reply has, and the names it says more than once."""
    named = [noun for noun in sorted(item.nouns) if CLASS_OF[noun] in ("men", "women", "animals")]
    return [noun for noun in named if pattern(noun).search(reply)] + people_of(reply)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--temperature", default=Sampling.temperature, show_default=True)
@click.option("--seed", default=Sampling.seed, show_default=True)
@click.option("--show", default=10, show_default=True, help="Print the first so many replies.")
def main(file: Path, requests: Path, temperature: float, seed: int, show: int) -> None:
    """Ask FILE, a model that train_tiny wrote, for the stories of REQUESTS, then to go on, then to end well."""
    items, how = read_held_out(requests), Sampling(temperature=temperature, seed=seed)
    model, vocabulary = read_gguf(file)
    talks = [[item.request] for item in items]
    first = answer(model, vocabulary, talks, how)
    pairs = list(zip(items, (a.text for a in first), strict=True))
    found = Counter(sum(pattern(noun).search(text) is not None for noun in item.nouns) for item, text in pairs)
    click.echo(f"both nouns: {found[2]} of {len(items)}, one: {found[1]}, none: {found[0]}")
    click.echo(f"ended by itself within {MOST} tokens: {sum(a.ended for a in first)}")
    who = [persons(item, text) for item, text in pairs]
    talks = [[item.request, text] for item, text in pairs]
    second = {}
    for request in ("Go on.", "Let it end well."):
        second[request] = answer(model, vocabulary, [[*talk, request] for talk in talks], how)
        kept = [keeps(a.text, words) for a, words in zip(second[request], who, strict=True) if words]
        click.echo(
            f"{request!r}: of {len(kept)} first replies with persons, {sum(k > 0 for k in kept)} replies keep one, "
            f"{sum(k == 1 for k in kept)} all; {sum(a.ended for a in second[request])} ended by themselves"
        )
    for item, a, b in list(zip(items, first, second["Go on."], strict=True))[:show]:
        click.echo(f"\n> **{item.request}**\n\n{a.text}\n\n> **Go on.**\n\n{b.text}")


if __name__ == "__main__":
    main()
