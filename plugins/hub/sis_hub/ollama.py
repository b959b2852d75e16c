"""The source ``ollama``: what Ollama has pulled, from its local store.

    manifests/REGISTRY/NAMESPACE/NAME/TAG    JSON with layers: media type, digest, size
    blobs/sha256-HEX                         the layers: weights in GGUF, template, parameters, licence

Ollama's templates are Go templates, which sis does not run: the file's own chat template is used. Its system message,
stops and parameters are a `Preset`. Read in Ollama's ``manifest`` package; nothing is ever asked of its server.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from attrs import field, frozen

from sis_core.errors import SourceError
from sis_core.source import Preset, Progress, Source
from sis_hub.listing import HashedListing, listed
from sis_hub.verify import check_hash

REGISTRY, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
LAYER = "application/vnd.ollama.image."
LARGEST_MANIFEST = 1 << 20
LARGEST_TEXT = 1 << 20

OPTIONS = {  # Ollama's names of numbers, and ours
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty", "repeat_last_n": "repeat_last_n", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}  # fmt: skip
WHOLE = {"top_k", "repeat_last_n"}

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_NAME = re.compile(rf"(?:(?:({_PART}(?::\d+)?)/)?({_PART})/)?({_PART})(?::({_PART}))?")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


@frozen
class OllamaModel:
    """A model in the store.

    Attributes:
        path: the weights.
        sha256: of the weights.
        template: Go's, for the record; empty where the manifest has none.
        system: the system message that Ollama would send.
        parameters: sampler options and stops by Ollama's names.
        licence: the first line of its text.
    """

    name: str
    path: Path
    sha256: str
    template: str = ""
    system: str = ""
    parameters: dict[str, Any] = field(factory=dict)
    licence: str = ""


class OllamaSource(Source):
    """``ollama://name:tag``.

    Args:
        store: the folder with ``manifests`` and ``blobs``; by default OLLAMA_MODELS, or where Ollama keeps it.
    """

    name = "ollama"

    def __init__(self, store: Path | None = None) -> None:
        self._store = store

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The weights' file.

        Raises:
            SourceError: there is no such model, or it is damaged.
        """
        found = self.model(reference)
        if found is None:
            return None
        check_hash(found.path, found.sha256, where=reference, fix=f"`ollama pull {found.name}` fetches it again")
        return found.path

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """``n`` bytes of the weights from ``start`` on, or fewer at the end."""
        found = self.model(reference)
        if found is None:
            return None
        with found.path.open("rb") as file:
            file.seek(start)
            return file.read(n)

    def preset(self, reference: str) -> Preset | None:
        """The system message and the parameters that ``ollama run`` would use, those that have a like here."""
        found = self.model(reference)
        if found is None:
            return None
        numbers = {
            ours: int(value) if ours in WHOLE else float(value)
            for theirs, ours in OPTIONS.items()
            if _is_number(value := found.parameters.get(theirs))
        }
        stops = found.parameters.get("stop", [])
        stops = [stops] if isinstance(stops, str) else stops if isinstance(stops, list) else []
        n_ctx = found.parameters.get("num_ctx")
        return Preset(
            found.system.strip(), numbers, tuple(stop for stop in stops if isinstance(stop, str) and stop),
            int(n_ctx) if _is_number(n_ctx) and n_ctx >= 1 else None,
        )  # fmt: skip

    def model(self, reference: str) -> OllamaModel | None:
        """All that the store knows of a model; None when the reference is not Ollama's.

        Raises:
            SourceError: there is no such model, or its manifest is damaged.
        """
        scheme, separator, rest = reference.partition("//")
        if not separator or scheme not in ("", "ollama:"):
            return None
        match = _NAME.fullmatch(rest)
        if not match or ".." in rest:
            raise SourceError(
                f"{rest[:80]!r} is not a model's name", where=reference[:200], fix="write ollama://name:tag"
            )
        registry, namespace, name, tag = match.groups()
        parts = (registry or REGISTRY, namespace or NAMESPACE, name, tag or TAG)
        for store in self.stores:
            manifest = store.joinpath("manifests", *parts)
            if manifest.is_file():
                return _read(store, manifest, f"{name}:{tag or TAG}", reference)
        known = ", ".join(listing.name for listing in self.list()) or "none"
        raise SourceError("Ollama has not pulled this model", where=reference, fix=f"it has: {known}")

    def list(self) -> Iterator[HashedListing]:
        """Every model in the store whose weights are there."""
        for store in self.stores:
            for manifest in sorted((store / "manifests").glob("*/*/*/*")):
                registry, namespace, name, tag = manifest.relative_to(store / "manifests").parts
                front = "" if registry == REGISTRY else f"{registry}/{namespace}/"
                front = front or ("" if namespace == NAMESPACE else f"{namespace}/")
                try:
                    found = _read(store, manifest, f"{front}{name}:{tag}", str(manifest))
                except SourceError:
                    continue
                yield listed(
                    f"ollama://{found.name}",
                    [found.path],
                    found.licence,
                    {found.path: found.sha256},
                    f"`ollama pull {found.name}`",
                )

    def remove(self, name: str) -> bool:
        """Never: the store is Ollama's.

        Raises:
            SourceError: it is one of Ollama's models.
        """
        found = self.model(name)
        if found is None:
            return False
        raise SourceError("belongs to Ollama", where=name, fix=f"`ollama rm {found.name}` removes it")

    @property
    def stores(self) -> Sequence[Path]:
        """Folders that may hold a store, those that exist."""
        named = os.environ.get("OLLAMA_MODELS")
        places = [self._store] if self._store else [Path(named)] if named else [
            Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models"),
        ]  # fmt: skip
        return [place for place in places if (place / "manifests").is_dir()]


def _read(store: Path, manifest: Path, name: str, where: str) -> OllamaModel:
    layers: dict[str, Path] = {}
    digests: dict[str, str] = {}
    try:
        if manifest.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("is too long")
        for layer in json.loads(manifest.read_bytes())["layers"]:
            kind = str(layer["mediaType"]).removeprefix(LAYER)
            digest = _DIGEST.fullmatch(str(layer["digest"]))
            if digest is None:  # it becomes part of a path
                raise ValueError(f"has a digest {str(layer['digest'])[:80]!r}")
            if kind not in layers:
                layers[kind], digests[kind] = store / "blobs" / f"sha256-{digest[1]}", digest[1]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"the manifest is damaged: {error}", where=str(manifest), fix=f"`ollama pull {name}` makes it anew"
        ) from None
    if "model" not in layers or not layers["model"].is_file():
        raise SourceError("its weights are not in the store", where=where, fix=f"`ollama pull {name}` fetches them")
    texts = {kind: _text(path) for kind, path in layers.items() if kind in ("template", "system", "params", "license")}
    try:
        parameters = json.loads(texts.get("params") or "{}")
    except ValueError:
        parameters = {}
    licence = texts.get("license", "").strip().partition("\n")[0].strip()
    return OllamaModel(
        name, layers["model"].absolute(), digests["model"], texts.get("template", ""), texts.get("system", ""),
        parameters if isinstance(parameters, dict) else {}, licence,
    )  # fmt: skip


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""
