"""What people write to name a model on a hub: ``hf://user/repo``, with a choice and a revision, or a page's address.

hf://user/repo                      hf://user/repo@revision
hf://user/repo:Q4_K_M               hf://user/repo:file.gguf@revision
hf://user/repo/folder/file.gguf     https://huggingface.co/user/repo/blob/main/file.gguf
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import frozen

from sis_core.errors import SourceError

MAIN = "main"
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_PAGES = ("blob", "resolve", "raw", "tree")
_WHERE = "write hf://user/repo, hf://user/repo:Q4_K_M or hf://user/repo:file.gguf, each with @revision if wanted"


@frozen
class HubReference:
    """A model on a hub.

    Attributes:
        repo: ``user/name``.
        choice: a quantisation's name or a file's path in the repository; empty to choose.
        revision: a branch, tag or commit.
    """

    repo: str
    choice: str = ""
    revision: str = MAIN

    def __str__(self) -> str:
        choice = f":{self.choice}" if self.choice else ""
        revision = f"@{self.revision}" if self.revision != MAIN else ""
        return f"hf://{self.repo}{choice}{revision}"

    @property
    def file(self) -> str:
        """The path of one file when that is what was chosen, else empty."""
        return self.choice if "." in self.choice else ""


def parse_hub_reference(text: str) -> HubReference | None:
    """The reference that ``text`` is, or None when it is neither ``hf://`` nor an address on a hub's own host.

    Raises:
        SourceError: it is one, but breaks its rules.
    """
    scheme, separator, rest = text.partition("//")
    text = f"hf:{text}" if not scheme else text
    if not separator:
        return None
    if scheme in ("", "hf:"):
        return _short(rest, text)
    if scheme in ("http:", "https:"):
        return _page(text)
    return None


def without_secrets(text: str) -> str:
    """An address without what may be a password or a signature; anything else as it is."""
    return re.sub(r"^(https?://)(?:[^/?#]*@)?([^?#]*).*", r"\1\2", text, flags=re.DOTALL)


def _short(rest: str, text: str) -> HubReference:
    rest, _, revision = rest.partition("@")
    if "/" in revision and ":" not in rest and rest.count("/") == 1 and revision.endswith((".gguf", ".safetensors")):
        revision, _, path = revision.partition("/")  # hf://user/repo@revision/file, as huggingface_hub writes it
        return _checked(rest, path, revision, text)
    repo, _, choice = rest.partition(":")
    owner, _, name = repo.removeprefix("models/").rstrip("/").partition("/")
    name, _, path = name.partition("/")
    return _checked(f"{owner}/{name}", choice or path, revision, text)


def _page(text: str) -> HubReference | None:
    try:
        address = urlsplit(text)
        own = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    except ValueError as error:
        raise SourceError(f"is not an address: {error}", where=text[:200]) from None
    if address.hostname not in HOSTS and (not own.netloc or address.netloc != own.netloc):
        return None
    parts = [unquote(part) for part in address.path.strip("/").split("/")]
    if len(parts) < 2:
        return None
    name, _, choice = parts[1].partition(":")  # hf.co/user/repo:Q4_K_M, as Ollama's users write it
    repo = f"{parts[0]}/{name}"
    if len(parts) >= 4 and parts[2] in _PAGES:
        return _checked(repo, "/".join(parts[4:]), parts[3], text)
    shown = parse_qs(address.query).get("show_file_info", [""])[0]  # the panel of a file on the model's page
    return _checked(repo, choice or shown, "", text)


def _checked(repo: str, choice: str, revision: str, text: str) -> HubReference:
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise SourceError(f"{repo[:200]!r} is not a repository's name", where=text[:200], fix=_WHERE)
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision or revision.endswith("/")):
        raise SourceError(f"{revision[:200]!r} is not a revision", where=text[:200], fix=_WHERE)
    if choice:
        check_repo_path(choice, where=text[:200])
    return HubReference(repo, choice, revision or MAIN)


def check_repo_path(path: str, *, where: str) -> None:
    """SourceError when a file's path in a repository could lead out of the folder that it is put into."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(c in path for c in "\\:\0") or not path.isprintable():
        raise SourceError(
            f"the file name {path[:200]!r} would lead out of its folder",
            where=where,
            fix="nothing was downloaded; do not trust this repository",
        )
