"""The source ``hf``: models on Hugging Face's hub, or another that speaks its protocol (HF_ENDPOINT)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve

from sis_core.errors import SourceError
from sis_core.registry import Registry
from sis_core.source import Progress, Source
from sis_hub.conversions import Conversions
from sis_hub.hub_cache import HubCache, default_cache
from sis_hub.hub_checkpoint import checkpoint_files
from sis_hub.hub_listing import commits_of, is_named, listings
from sis_hub.licences import notice
from sis_hub.listing import HashedListing
from sis_hub.quant_choice import Candidate, best, candidates, lacking, named
from sis_hub.reference import HubReference, parse_hub_reference
from sis_hub.remote import Remote
from sis_hub.repository import Hub, Repository, UnreachableError
from sis_hub.transfer import read_range

log = logging.getLogger(__name__)


class HubSource(Source):
    """``hf://user/repo``, and addresses of the hub's pages.

    What is in the cache is used without asking anyone. What is not is downloaded; `pull` asks the hub in any case.

    Args:
        hub: the service; by default the one that HF_ENDPOINT names, or the public one.
        cache: by default the one that huggingface_hub uses.
        memory: bytes that a model may take; None for what is free when it is chosen.
        conversions: of repositories that have safetensors only.
    """

    name = "hf"

    def __init__(
        self,
        hub: Hub | None = None,
        cache: HubCache | None = None,
        memory: int | None = None,
        conversions: Conversions | None = None,
    ) -> None:
        self._hub, self._cache, self._memory = hub or Hub(), cache, memory
        self._conversions = conversions or Conversions()
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

    def convert(
        self, reference: str, to: str, registry: Registry | None = None, progress: Progress | None = None
    ) -> Path | None:
        """A repository's safetensors as a GGUF file with the matrices in the format or recipe ``to``.

        Raises:
            SisError: it has GGUF files only, or its model cannot be converted.
        """
        parsed = parse_hub_reference(reference)
        if parsed is None:
            return None
        repository = self._look_up(evolve(parsed, choice=""))
        return self._checkpoint(repository, to, registry, progress)

    def _pull(self, reference: HubReference, progress: Progress | None) -> Path:
        cache = self.cache.repo(reference.repo)
        try:
            repository = self._look_up(reference)
        except UnreachableError as error:
            commit = cache.commit(reference.revision)
            found = self._cached(reference)
            if found is None and not reference.file and checkpoint_files(cache.files(commit)):
                found = self._converted(reference, commit, reference.choice, None, progress)
            if found is None:
                raise
            log.warning("%s. Using the copy of commit %.7s", error, commit)
            return found
        known = candidates(repository.sizes)
        if not known and not reference.file:
            return self._checkpoint(repository, reference.choice, None, progress)
        chosen = self._choose(reference, known)
        self._fetch(repository, chosen.files, progress)
        return cache.snapshot(repository.commit).joinpath(chosen.files[0]).absolute()

    def _look_up(self, reference: HubReference) -> Repository:
        before = self.cache.repo(reference.repo).commit(reference.revision)
        repository = self._hub.look_up(reference)
        if before and before != repository.commit:
            log.warning("%s: %s moved from %.7s to %.7s", reference, reference.revision, before, repository.commit)
        return repository

    def _fetch(self, repository: Repository, paths: Sequence[str], progress: Progress | None) -> None:
        reference = repository.reference
        if text := notice(repository.licence, gated=repository.gated, terms=repository.terms):
            log.warning("%s: %s", reference, text)
        self._hub.fetch(repository, paths, self.cache.repo(reference.repo), progress)

    def _checkpoint(
        self, repository: Repository, to: str, registry: Registry | None, progress: Progress | None
    ) -> Path:
        """A repository's safetensors, downloaded and converted."""
        reference = repository.reference
        paths = checkpoint_files(repository.files)
        if not paths:
            _refuse_parts(repository)
            raise SourceError(
                "holds neither a GGUF file nor a model in safetensors",
                where=str(reference),
                fix="look for a repository with GGUF in its name, made from this one",
            )
        self._fetch(repository, paths, progress)
        return self._converted(reference, repository.commit, to, registry, progress)

    def _converted(
        self, reference: HubReference, commit: str, to: str, registry: Registry | None, progress: Progress | None
    ) -> Path:
        return self._conversions.of(
            self.cache.repo(reference.repo).snapshot(commit),
            str(evolve(reference, choice=to)),
            key=f"{reference.repo}@{commit}",
            name=reference.repo.partition("/")[2],
            to=to,
            registry=registry,
            progress=progress,
        )

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
            _refuse_parts(repository)
            chosen = self._choose(parsed, candidates(repository.sizes))
            self._remotes[parsed] = self._hub.remote(repository, repository.files[chosen.files[0]])
        return read_range(self._remotes[parsed], start, n, self._hub.patience)

    def list(self) -> Iterator[HashedListing]:
        """The models in the cache, also those that other programs put there, each once however many commits have it."""
        for repo in self.cache.repos():
            seen: set[Path] = set()
            for listing in listings(repo):
                blobs = {file.resolve() for file in listing.hashes}
                if not blobs <= seen:
                    seen |= blobs
                    yield listing

    def remove(self, name: str) -> bool:
        """Remove a model from the cache: at its revision, or for the main branch at whatever commit that was."""
        parsed = parse_hub_reference(name)
        if parsed is None:
            return False
        repo = self.cache.repo(parsed.repo)
        found = listings(repo, commits_of(repo, parsed.revision))
        gone = [path for listing in found if is_named(listing, parsed) for path in listing.hashes]
        if converted := self._conversions.remove(str(parsed)):
            gone += [
                folder / path for commit, folder in repo.snapshots() for path in checkpoint_files(repo.files(commit))
            ]
        repo.remove(gone)
        return bool(gone) or converted

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
            name = reference.repo.partition("/")[2]
            converted = self._conversions.target(f"{reference.repo}@{commit}", name, reference.choice)
            return converted if converted.exists() else None
        if reference.choice:
            try:
                chosen = named(reference.choice, known, where=str(reference))
            except SourceError:
                return None  # the hub may have it
        else:
            chosen = known[0] if len(known) == 1 else self._choose(reference, known)
        return cache.snapshot(commit).joinpath(chosen.files[0]).absolute()

    def _choose(self, reference: HubReference, known: Sequence[Candidate]) -> Candidate:
        where = str(reference)
        if not known:
            raise SourceError("holds no GGUF file", where=where, fix="`sis pull` converts a model in safetensors")
        if reference.choice:
            return named(reference.choice, known, where=where)
        chosen, why = best(known, self._free_memory(), where=where)
        if len(known) > 1:
            log.warning("%s: %s", reference, why)
        return chosen

    def _free_memory(self) -> int:
        if self._memory is not None:
            return self._memory
        from sis_core.machine.memory import available_memory

        return available_memory()


def _refuse_parts(repository: Repository) -> None:
    """SourceError where all that there is of GGUF are some of a file's parts."""
    if not candidates(repository.sizes) and (missing := lacking(repository.sizes)):
        raise SourceError(
            f"holds a GGUF file that is split, without {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            where=str(repository.reference),
            fix="take another repository: its parts are of use only together",
        )
