"""A model as Hugging Face keeps it: a folder with config.json, a tokenizer and one or several safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from sis_core.errors import SourceError
from sis_hub.convert.safetensors import Entry, SafetensorsFile

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LARGEST_JSON = 1 << 28
#: What a conversion reads beside the weights, where it is there.
COMPANIONS = (
    CONFIG, INDEX, "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "chat_template.json", "README.md",
)  # fmt: skip


class Checkpoint:
    """An open folder.

    Attributes:
        config: of the text model: where a model has several parts, ``text_config`` is laid over the whole.
        files: its safetensors files, by name.
    """

    def __init__(self, folder: Path) -> None:
        """Read everything but the weights.

        Raises:
            SourceError: a file is missing or damaged; there are only pickles, which are never opened.
        """
        self.folder = folder
        self._refuse_without_weights()
        whole = self.json(CONFIG)
        if whole is None:
            self.refuse("has no config.json", "download the whole repository, not only the weights")
        self.config: dict[str, Any] = whole | _object(whole.get("text_config"))
        self.files = {path.name: SafetensorsFile(path) for path in self._paths()}
        self._check_names()

    @cached_property
    def tensors(self) -> Mapping[str, tuple[SafetensorsFile, Entry]]:
        """Every tensor by name, with its file, in the order of files and bytes."""
        return {entry.name: (file, entry) for file in self.files.values() for entry in file.tensors.values()}

    def check_quantised(self, allowed: Sequence[str]) -> None:
        """SourceError for weights that were quantised by a method that is not ``allowed``."""
        quantised = self.config.get("quantization_config")
        if quantised:
            method = str(_object(quantised).get("quant_method", "some method"))
            if method not in allowed:
                self.refuse(f"is quantised by {method[:40]!r}", "take the repository with the original weights")

    @property
    def architecture(self) -> str:
        """The first of ``architectures``, or empty."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    def json(self, name: str) -> dict[str, Any] | None:
        """A file of the folder as a JSON object; None when there is none.

        Raises:
            SourceError: it is something else.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > LARGEST_JSON:
                raise ValueError("it is too long")
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self.refuse(f"has a {name} that cannot be read: {error}", "download it again")
        if not isinstance(found, dict):
            self.refuse(f"has a {name} that is not a JSON object", "download it again")
        return found

    def refuse(self, what: str, fix: str) -> NoReturn:
        """An error about this folder."""
        raise SourceError(f"this folder {what}", where=str(self.folder), fix=fix)

    def _paths(self) -> Sequence[Path]:
        index = self.json(INDEX)
        if index is None:
            return sorted(self.folder.glob("*.safetensors"))
        names = sorted({str(name) for name in _object(index.get("weight_map")).values()})
        if not names:
            self.refuse(f"has a {INDEX} without a weight_map", "download it again")
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                self.refuse(f"lacks the file {name[:80]!r} that its index names", "download every file of it")
        return [self.folder / name for name in names]

    def _refuse_without_weights(self) -> None:
        if any(self.folder.glob("*.safetensors")):
            return
        pickles = sorted(path.name for path in self.folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            self.refuse(
                f"has its weights only as pickles ({pickles[0]}), which could run code and are never opened",
                "look for a repository with safetensors or GGUF files",
            )
        self.refuse("holds neither a GGUF file nor safetensors", "give a .gguf file, or a folder with safetensors")

    def _check_names(self) -> None:
        index = self.json(INDEX)
        found = [name for file in self.files.values() for name in file.tensors]
        if len(set(found)) != len(found):
            twice = next(name for name in found if found.count(name) > 1)
            self.refuse(f"has the tensor {twice[:80]!r} in two files", "download it again")
        if index is not None and (missing := set(_object(index["weight_map"])) - set(found)):
            self.refuse(f"lacks the tensor {min(missing)[:80]!r} that its index names", "download it again")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is meant to be a model of Hugging Face's."""
    return folder.is_dir() and (
        (folder / CONFIG).is_file() or any(path.suffix in (".safetensors", *PICKLES) for path in folder.iterdir())
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
