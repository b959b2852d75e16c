"""A repository on the hub: what it lists, and its files brought into the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import field, frozen

from sis_core.errors import SourceError
from sis_core.source import Progress
from sis_hub.download import check_space, download
from sis_hub.hub_cache import RepoCache
from sis_hub.reference import HubReference, check_repo_path
from sis_hub.remote import Patience, Remote
from sis_hub.transfer import AGAIN, hush, status_text

log = logging.getLogger(__name__)
T = TypeVar("T")

CARD = "README.md"
LARGEST_CARD = 1 << 20
MAX_HTTP_BYTES = 50 * 10**9  # the hub serves larger files by its own protocol only


@frozen
class RepoFile:
    """A file as the repository lists it. ``sha256`` is empty for a small one, which has only git's hash."""

    path: str
    n_bytes: int
    git_sha1: str
    sha256: str = ""

    @property
    def blob(self) -> str:
        """Its name in the cache."""
        return self.sha256 or self.git_sha1


@frozen
class Repository:
    """What the hub says about a model at one commit.

    Attributes:
        licence: as its card states it; empty where it states none.
        gated: its terms must be accepted on its page first.
    """

    reference: HubReference
    commit: str
    files: Mapping[str, RepoFile]
    licence: str
    gated: bool
    terms: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {path: file.n_bytes for path, file in self.files.items()}


@frozen
class Hub:
    """The service: asks for listings and files.

    Args:
        endpoint: its address; by default HF_ENDPOINT or the public one.
    """

    endpoint: str | None = None
    patience: Patience = field(factory=Patience)

    def look_up(self, reference: HubReference) -> Repository:
        """The listing of a repository at the revision asked for.

        Raises:
            UnreachableError: the hub cannot be asked now, or must not (HF_HUB_OFFLINE).
            SourceError: there is no such repository or revision, or one may not see it; a file name leads elsewhere.
        """
        from huggingface_hub import HfApi

        hush()
        api = HfApi(endpoint=self.endpoint)

        def ask() -> Any:
            return api.model_info(
                reference.repo,
                revision=reference.revision,
                files_metadata=True,
                timeout=self.patience.timeout,
            )

        info = self._patiently(ask, reference)
        files = [
            RepoFile(s.rfilename, s.size or 0, s.blob_id or "", s.lfs.sha256 if s.lfs else "")
            for s in info.siblings or ()
        ]
        for file in files:
            check_repo_path(file.path, where=str(reference))
        if not info.sha:
            raise SourceError("the hub named no commit", where=str(reference), fix="check HF_ENDPOINT")
        licence, terms = _licence(info.card_data, f"{api.endpoint}/{reference.repo}")
        return Repository(reference, info.sha, {f.path: f for f in files}, licence, bool(info.gated), terms)

    def fetch(
        self, repository: Repository, paths: Iterable[str], cache: RepoCache, progress: Progress | None = None
    ) -> None:
        """Bring files of a repository into the cache, each checked against the listing.

        Raises:
            SourceError: one cannot be had or does not fit on the disk.
        """
        card = repository.files.get(CARD)
        wanted = [repository.files[path] for path in paths]
        if card and card.n_bytes <= LARGEST_CARD and card not in wanted:
            wanted.append(card)  # `sis list` reads the licence from it
        missing = [file for file in wanted if not cache.snapshot(repository.commit).joinpath(file.path).exists()]
        where = f"hf://{repository.reference.repo}"
        total = sum(file.n_bytes for file in missing)
        check_space(cache.path, total - sum(_partial(cache, file) for file in missing), where)
        done = 0
        for file in missing:
            self._fetch_one(repository, file, cache, _shifted(progress, done, total))
            done += file.n_bytes
        cache.set_commit(repository.reference.revision, repository.commit)

    def remote(self, repository: Repository, file: RepoFile) -> Remote:
        """Where a file's bytes are."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

        repo = repository.reference.repo
        if file.n_bytes > MAX_HTTP_BYTES:
            raise SourceError(
                f"{file.path} has {file.n_bytes:,} bytes, and the hub serves only up to {MAX_HTTP_BYTES:,} this way",
                where=f"hf://{repo}",
                fix=f"`hf download {repo} {file.path}` puts it where sis finds it",
            )
        return Remote(
            hf_hub_url(repo, file.path, revision=repository.commit, endpoint=self.endpoint),
            f"hf://{repo}/{file.path}",
            file.n_bytes,
            file.sha256,
            "" if file.sha256 else file.git_sha1,
            build_hf_headers(library_name="sis"),
            gguf=file.path.lower().endswith(".gguf"),
        )

    def _fetch_one(self, repository: Repository, file: RepoFile, cache: RepoCache, progress: Progress | None) -> None:
        if not file.blob.isalnum():
            raise SourceError("the listing has no hash for it", where=f"{repository.reference}: {file.path}")
        blob = cache.blob(file.blob)
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            download(
                self.remote(repository, file), blob, lock=cache.lock(file.blob), progress=progress,
                patience=self.patience,
            )  # fmt: skip
            cache.link(repository.commit, file.path, file.blob)
        except OSError as error:
            raise SourceError(
                f"cannot be written: {error}", where=str(cache.path), fix="check the disk and the permissions"
            ) from error

    def _patiently(self, ask: Callable[[], T], reference: HubReference) -> T:
        """Ask; again where the hub is busy. Its errors as ours."""
        import httpx2
        from huggingface_hub import errors

        for attempt in range(1, self.patience.tries + 1):
            try:
                return ask()
            except errors.OfflineModeIsEnabled:
                raise UnreachableError(
                    "is not here, and HF_HUB_OFFLINE forbids asking for it", where=str(reference),
                    fix="unset HF_HUB_OFFLINE",
                ) from None  # fmt: skip
            except httpx2.TransportError as error:
                asked, reason = None, str(error) or type(error).__name__
            except errors.HfHubHTTPError as error:
                response = error.response
                if response.status_code not in AGAIN:
                    raise _refusal(error, reference) from None
                asked, reason = response.headers.get("retry-after"), status_text(response)
            except (ValueError, KeyError, TypeError) as error:  # a portal's page instead of JSON
                raise SourceError(
                    f"what answered is no hub: {type(error).__name__}", where=str(reference),
                    fix="check HF_ENDPOINT, and whether this network wants a log-in page first",
                ) from error  # fmt: skip
            if attempt < self.patience.tries:
                log.info("%s: %s; asking again", reference, reason)
                self.patience.wait(attempt, asked)
        raise UnreachableError(
            f"the hub cannot be asked: {reason}", where=str(reference), fix="check the network and the proxy variables"
        )


class UnreachableError(SourceError):
    """The hub cannot be asked now: what is in the cache may still do."""


def _refusal(error: Any, reference: HubReference) -> SourceError:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{reference.repo}"
    where, status = str(reference), error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return SourceError(
            "is gated: its terms must be accepted first",
            where=where,
            fix=f"accept them on {page}, then log in (`hf auth login`) or set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(
            f"has no revision {reference.revision!r}", where=where, fix=f"see its branches and tags on {page}/tree/main"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        has_token = "authorization" in {name.lower() for name in error.response.request.headers}
        who = "for this account" if has_token else "without a log-in"
        return SourceError(
            f"there is no such repository, or none to see {who} ({status})",
            where=where,
            fix="check the name; if it is private or gated, log in (`hf auth login`) or set HF_TOKEN",
        )
    return SourceError(f"the hub answered {status_text(error.response)}", where=where, fix=f"see {page}")


def _licence(card: Any, page: str) -> tuple[str, str]:
    """The licence's name and where its terms are."""
    licence = getattr(card, "license", None) or ""
    if isinstance(licence, list):
        licence = " and ".join(map(str, licence))
    if licence == "other":
        licence = str(getattr(card, "license_name", None) or licence)
    link = str(getattr(card, "license_link", None) or page)
    return str(licence), link if link.startswith("https://") else page


def _partial(cache: RepoCache, file: RepoFile) -> int:
    blob = cache.blob(file.blob)
    for path in (blob, blob.with_name(blob.name + ".incomplete")):
        if os.path.exists(path):
            return path.stat().st_size
    return 0


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one file as that of all."""
    return None if progress is None else lambda done, _: progress(before + done, total)
