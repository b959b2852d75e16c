"""What of the hub's cache is a model, under the name that gets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sis_hub.hub_cache import RepoCache
from sis_hub.listing import HashedListing, listed
from sis_hub.quant_choice import Candidate, candidates
from sis_hub.reference import MAIN, HubReference, parse_hub_reference
from sis_hub.repository import CARD


def listings(repo: RepoCache) -> Iterator[HashedListing]:
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


def is_named(listing: HashedListing, wanted: HubReference) -> bool:
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
