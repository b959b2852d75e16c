"""The vocabulary: byte-level BPE as GPT-2 cuts text (Radford et al. 2019), so that any text can be written."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from train_tiny.text import MARK

BOS, EOS = MARK, "<|end|>"


@dataclass(frozen=True)
class Vocabulary:
    """A trained tokenizer with the ids of its two control tokens."""

    tokenizer: Tokenizer
    bos: int
    eos: int

    def encode(self, story: str) -> list[int]:
        """A whole story as token ids: `<|story|>`, the text, `<|end|>`."""
        return [self.bos, *self.tokenizer.encode(story).ids, self.eos]

    def decode(self, ids: list[int]) -> str:
        """Token ids as text, control tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def tokens(self) -> list[str]:
        """Every token in the order of its id, bytes written as GPT-2's printable letters."""
        return [self.tokenizer.id_to_token(i) for i in range(self.size)]

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self.tokenizer.get_vocab_size()

    def control(self) -> set[int]:
        """The ids of the control tokens: they are never the reading of a text that spells them."""
        return {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}

    def with_control(self, names: list[str]) -> "Vocabulary":
        """The same vocabulary with more control tokens behind its last, unless it has them."""
        longer = Tokenizer.from_str(self.tokenizer.to_str())
        longer.add_special_tokens(names)
        return Vocabulary(longer, self.bos, self.eos)

    def merges(self) -> list[str]:
        """The merges in the order they were learnt, each as its two parts with a space between."""
        return [" ".join(pair) for pair in json.loads(self.tokenizer.to_str())["model"]["merges"]]

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        self.tokenizer.save(str(path))


def load_vocabulary(path: Path) -> Vocabulary:
    """Read what `save` wrote."""
    return _with_control_ids(Tokenizer.from_file(str(path)))


def train_vocabulary(stories: Iterable[str], size: int) -> Vocabulary:
    """Learn up to `size` tokens: two control tokens, the 256 bytes, then the most frequent merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return _with_control_ids(tokenizer)


def _with_control_ids(tokenizer: Tokenizer) -> Vocabulary:
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    if bos is None or eos is None:
        raise ValueError(f"the tokenizer lacks {BOS} or {EOS}")
    return Vocabulary(tokenizer, bos, eos)
