"""The source ``hf``: models on Hugging Face's hub, or another that speaks its protocol (HF_ENDPOINT)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from sis_core.errors import SourceError
from sis_core.source import Progress, Source
from sis_hub.hub_cache import HubCache, RepoCache, default_cache
from sis_hub.licences import notice
from sis_hub.listing import HashedListing, listed
from sis_hub.quant_choice import Candidate, best, candidates, named
from sis_hub.reference import MAIN, HubReference, parse_hub_reference
from sis_hub.remote import Remote
from sis_hub.repository import CARD, Hub, UnreachableError
from sis_hub.transfer import read_range

log = logging.getLogger(__name__)


class HubSource(Source):
    """``hf://user/repo``, and addresses of the hub's pages.

    What is in the cache is used without asking anyone. What is not is downloaded; `pull` asks the hub in any case.

    Args:
        hub: the service; by default the one that HF_ENDPOINT names, or the public one.
        cache: by default the one that huggingface_hub uses.
        memory: bytes that a model may take; None for what is free when it is chosen.
    """

    name = "hf"

    def __init__(self, hub: Hub | None = None, cache: HubCache | None = None, memory: int | None = None) -> None:
        self._hub, self._cache, self._memory = hub or Hub(), cache, memory
        self._remotes: dict[HubReference, Remote] = {}  # found once for the many reads of one header

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The model's file: from the cache, or downloaded now.

        Raises:
            SourceError: the reference breaks its rules, or what it names cannot be had.
        """
        parsed = parse_hub_reference(reference)
        return None if parsed is None else self._cached(parsed) or self._pull(parsed, progress)

    def pull(self, reference: str, progress: Progress | None = None) -> Path | None:
        """As `resolve`, but the hub is asked what the revision is now.

        Raises:
            SourceError: the reference breaks its rules, or what it names cannot be had.
        """
        parsed = parse_hub_reference(reference)
        return None if parsed is None else self._pull(parsed, progress)

    def _pull(self, reference: HubReference, progress: Progress | None) -> Path:
        cache = self.cache.repo(reference.repo)
        before = cache.commit(reference.revision)
        try:
            repository = self._hub.look_up(reference)
        except UnreachableError as error:
            if found := self._cached(reference):
                log.warning("%s. Using the copy of commit %.7s", error, before)
                return found
            raise
        if before and before != repository.commit:
            log.warning("%s: %s moved from %.7s to %.7s", reference, reference.revision, before, repository.commit)
        chosen = self._choose(reference, candidates(repository.sizes))
        if text := notice(repository.licence, gated=repository.gated, terms=repository.terms):
            log.warning("%s: %s", reference, text)
        self._hub.fetch(repository, chosen.files, cache, progress)
        return cache.snapshot(repository.commit).joinpath(chosen.files[0]).absolute()

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """``n`` bytes of the model's file from ``start`` on, or fewer at its end, without downloading the rest.

        Raises:
            SourceError: they cannot be had.
        """
        parsed = parse_hub_reference(reference)
        if parsed is None:
            return None
        if path := self._cached(parsed):
            with path.open("rb") as file:
                file.seek(start)
                return file.read(n)
        if parsed not in self._remotes:
            repository = self._hub.look_up(parsed)
            chosen = self._choose(parsed, candidates(repository.sizes))
            self._remotes[parsed] = self._hub.remote(repository, repository.files[chosen.files[0]])
        return read_range(self._remotes[parsed], start, n, self._hub.patience)

    def list(self) -> Iterator[HashedListing]:
        """The models in the cache, also those that other programs put there, each once however many commits have it."""
        for repo in self.cache.repos():
            seen: set[Path] = set()
            for listing in _listings(repo):
                blobs = {file.resolve() for file in listing.hashes}
                if not blobs <= seen:
                    seen |= blobs
                    yield listing

    def remove(self, name: str) -> bool:
        """Remove a model from the cache, at every commit that has it under this name."""
        parsed = parse_hub_reference(name)
        if parsed is None:
            return False
        repo = self.cache.repo(parsed.repo)
        gone = [listing for listing in _listings(repo) if _is_named(listing, parsed)]
        repo.remove(path for listing in gone for path in listing.hashes)
        return bool(gone)

    @property
    def cache(self) -> HubCache:
        """The cache, found when first needed."""
        if self._cache is None:
            self._cache = default_cache()
        return self._cache

    def _cached(self, reference: HubReference) -> Path | None:
        """The model's file when all of it is in the cache."""
        cache = self.cache.repo(reference.repo)
        commit = cache.commit(reference.revision)
        known = candidates(cache.files(commit)) if commit else []
        if not known:
            return None
        if reference.choice:
            try:
                chosen = named(reference.choice, known, where=str(reference))
            except SourceError:
                return None  # the hub may have it
        else:
            chosen = self._choose(reference, known)
        return cache.snapshot(commit).joinpath(chosen.files[0]).absolute()

    def _choose(self, reference: HubReference, known: Sequence[Candidate]) -> Candidate:
        where = str(reference)
        if not known:
            raise SourceError(
                "holds no GGUF file", where=where, fix="look for a repository with GGUF in its name, made from this one"
            )
        if reference.choice:
            return named(reference.choice, known, where=where)
        if len(known) == 1:
            return known[0]
        chosen, why = best(known, self._free_memory(), where=where)
        log.warning("%s: %s", reference, why)
        return chosen

    def _free_memory(self) -> int:
        if self._memory is not None:
            return self._memory
        from sis_core.machine.memory import available_memory

        return available_memory()


def _listings(repo: RepoCache) -> Iterator[HashedListing]:
    """The models of a repository at every commit that is in the cache, the newest first."""
    for commit, folder in repo.snapshots():
        for found in candidates(repo.files(commit)):
            files = [folder.joinpath(file) for file in found.files]
            hashes = {file: _hash_of(file.resolve().name) for file in files}
            yield listed(_name(repo, commit, found), files, _licence_in(folder / CARD), hashes)


def _name(repo: RepoCache, commit: str, found: Candidate) -> str:
    """What to type to get just this model, offline too."""
    revisions = repo.revisions(commit)
    revision = MAIN if MAIN in revisions or not revisions else revisions[0]
    return str(HubReference(repo.repo, found.files[0] if not found.label else found.label, revision))


def _is_named(listing: HashedListing, wanted: HubReference) -> bool:
    found = parse_hub_reference(listing.name)
    if found is None or found.repo != wanted.repo:
        return False
    choice = wanted.choice.casefold()
    return not choice or choice in (found.choice.casefold(), listing.path.name.casefold())


def _hash_of(blob: str) -> str:
    """A blob's hash, which is its name: a SHA-256, or git's SHA-1 of a small file."""
    return blob if len(blob) == 64 else f"git:{blob}" if len(blob) == 40 else ""


def _licence_in(card: Path) -> str:
    """The licence that a model card states."""
    from huggingface_hub import metadata_load

    try:
        found = (metadata_load(card) or {}).get("license", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return " and ".join(map(str, found)) if isinstance(found, list) else str(found or "")
