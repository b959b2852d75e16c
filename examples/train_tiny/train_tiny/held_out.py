"""The requests that only measure: `python -m train_tiny.held_out held_out_requests.tsv`.

Each names two nouns that the seed draws; no request of the training names the same two. The file of the project was
drawn before the training.
"""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import click

from train_tiny.nouns import ALSO_VERBS, NOUNS
from train_tiny.talks import request_for


@dataclass(frozen=True)
class HeldOut:
    """A request and the two nouns it names."""

    request: str
    nouns: frozenset[str]


def draw(count: int, seed: int) -> list[HeldOut]:
    """Requests for `count` different pairs of nouns; words that are verbs as well are not drawn: they prove little."""
    pick = random.Random(seed)
    plain = [noun for noun in NOUNS if noun not in ALSO_VERBS]
    drawn: dict[frozenset[str], HeldOut] = {}
    while len(drawn) < count:
        nouns = pick.sample(plain, 2)
        drawn[frozenset(nouns)] = HeldOut(request_for(nouns, bool(pick.getrandbits(1)), pick), frozenset(nouns))
    return list(drawn.values())


def read_held_out(path: Path) -> list[HeldOut]:
    """Read what the command wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [HeldOut(row["request"], frozenset(row["nouns"].split())) for row in rows]


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--count", default=100, show_default=True, help="How many requests.")
@click.option("--seed", default=12, show_default=True)
def main(out: Path, count: int, seed: int) -> None:
    """Draw held-out requests and write them to OUT: a request and its two nouns on each line."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["request", "nouns"])
        writer.writerows([item.request, " ".join(sorted(item.nouns))] for item in draw(count, seed))


if __name__ == "__main__":
    main()
