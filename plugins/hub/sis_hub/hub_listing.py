"""What of the hub's cache is a model, under the name that gets it."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from sis_hub.hub_cache import RepoCache
from sis_hub.listing import HashedListing, listed
from sis_hub.quant_choice import Candidate, candidates
from sis_hub.reference import MAIN, HubReference, parse_hub_reference
from sis_hub.repository import CARD


def listings(repo: RepoCache, commits: Container[str] | None = None) -> Iterator[HashedListing]:
    """The models of a repository at ``commits`` (default: every one) that are in the cache, the newest first."""
    for commit, folder in repo.snapshots():
        if commits is not None and commit not in commits:
            continue
        for found in candidates(repo.files(commit)):
            files = [folder.joinpath(file) for file in found.files]
            hashes = {file: _hash_of(file.resolve().name) for file in files}
            yield listed(_name(repo, commit, found), files, _licence_in(folder / CARD), hashes)


def _name(repo: RepoCache, commit: str, found: Candidate) -> str:
    """What to type to get just this model, offline too."""
    revisions = repo.revisions(commit)
    revision = MAIN if MAIN in revisions else next(iter(revisions), commit)
    return str(HubReference(repo.repo, found.files[0] if not found.label else found.label, revision))


def commits_of(repo: RepoCache, revision: str) -> set[str]:
    """The commit that ``revision`` is; for the main branch also those that no branch or tag is any more."""
    found = {repo.commit(revision)}
    if revision == MAIN:
        found |= {commit for commit, _ in repo.snapshots() if not repo.revisions(commit)}
    return found


def is_named(listing: HashedListing, wanted: HubReference) -> bool:
    """Whether it is the quantisation or file that is wanted, at whatever commit."""
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
