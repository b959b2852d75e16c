"""Reading the text: stories from a folder, and the choice of those that are held out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

MARK = "<|story|>"


@dataclass(frozen=True)
class Stories:
    """The stories that train the model, and those that only measure it."""

    train: list[str]
    held_out: list[str]


def is_held_out(story: str, percent: int) -> bool:
    """Whether a story is held out. Its hash alone decides: neither file order nor new files move a story."""
    digest = hashlib.sha256(story.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") % 100 < percent


def read_stories(folder: Path, percent_held_out: int = 5) -> Stories:
    """Read every .txt file of a folder. `<|story|>` begins a story; a file without it is one story."""
    stories = []
    for path in sorted(folder.glob("*.txt")):
        parts = path.read_text(encoding="utf-8").replace("\r\n", "\n").split(MARK)
        stories += [part.strip() for part in parts if part.strip()]
    held_out = [story for story in stories if is_held_out(story, percent_held_out)]
    train = [story for story in stories if not is_held_out(story, percent_held_out)]
    if not train:
        raise ValueError(f"no stories to train on in {folder}: it should hold .txt files in UTF-8")
    return Stories(train, held_out or train[-1:])
