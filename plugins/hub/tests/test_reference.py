"""Every way to write a model's name ends in the same record, and what could lead out of a folder is refused."""

from __future__ import annotations

import pytest
from sis_hub.reference import HubReference, check_repo_path, parse_hub_reference, without_secrets

from sis_core.errors import SourceError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://user/repo", HubReference("user/repo")),
        ("//user/repo", HubReference("user/repo")),
        ("hf://user/repo:Q4_K_M", HubReference("user/repo", "Q4_K_M")),
        ("hf://user/repo@v1.0", HubReference("user/repo", "", "v1.0")),
        ("hf://user/repo:a.gguf@refs/pr/1", HubReference("user/repo", "a.gguf", "refs/pr/1")),
        ("hf://user/repo/sub/a.gguf", HubReference("user/repo", "sub/a.gguf")),
        ("hf://user/repo/a.gguf@v1", HubReference("user/repo", "a.gguf", "v1")),
        ("hf://user/repo@v1/a.gguf", HubReference("user/repo", "a.gguf", "v1")),
        ("hf://models/user/repo", HubReference("user/repo")),
        ("https://huggingface.co/user/repo", HubReference("user/repo")),
        ("https://huggingface.co/user/repo/", HubReference("user/repo")),
        ("https://huggingface.co/user/repo/tree/v2", HubReference("user/repo", "", "v2")),
        ("https://huggingface.co/user/repo/blob/main/a.gguf", HubReference("user/repo", "a.gguf")),
        ("https://huggingface.co/user/repo/resolve/main/s/a.gguf?download=true", HubReference("user/repo", "s/a.gguf")),
        ("https://huggingface.co/user/repo/blob/v2/a%20b.gguf", HubReference("user/repo", "a b.gguf", "v2")),
        ("https://huggingface.co/user/repo?show_file_info=a.gguf", HubReference("user/repo", "a.gguf")),
        ("https://hf.co/user/repo:Q8_0", HubReference("user/repo", "Q8_0")),
    ],
)
def test_what_people_write(text: str, expected: HubReference) -> None:
    assert parse_hub_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["tiny", "a/b", "a/b:c", "./model.gguf", "s3://bucket/m.gguf", "https://other.org/a/b"]
)
def test_what_is_not_the_hubs(text: str) -> None:
    assert parse_hub_reference(text) is None


def test_the_endpoint_is_a_host_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443")
    assert parse_hub_reference("https://mirror.example:8443/u/r/blob/main/a.gguf") == HubReference("u/r", "a.gguf")
    assert parse_hub_reference("https://mirror.example/u/r/blob/main/a.gguf") is None


def test_a_reference_prints_as_it_is_typed() -> None:
    for text in ("hf://user/repo", "hf://user/repo:Q4_K_M", "hf://user/repo:a.gguf@v1"):
        assert str(parse_hub_reference(text)) == text


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://a", "hf://../x", "hf://a/..", "hf://a/b--c", "hf://a/b@../x", "hf://a/b@", "hf://a/b:../../x.gguf",
     "hf://a/b//c.gguf", "hf://a/b:/etc/x.gguf", "hf://a/b:a\\b.gguf", "hf://a/b:\0.gguf", "hf://a b/c", "hf://a/b@x/"],
)  # fmt: skip
def test_refused(text: str) -> None:
    if text == "hf://a/b@":
        assert parse_hub_reference(text) == HubReference("a/b")
        return
    with pytest.raises(SourceError):
        parse_hub_reference(text)


@pytest.mark.parametrize("path", ["../a", "a/../b", "/a", "a//b", ".", "a/.", "C:/a", "a\\b", "a\0", "a\nb", ""])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(SourceError, match="would lead out of its folder"):
        check_repo_path(path, where="hf://a/b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:password@host:8/a/m.gguf?X-Amz-Signature=secret#x", "https://host:8/a/m.gguf"),
        ("https://host/a@b/m.gguf", "https://host/a@b/m.gguf"),
        ("hf://me/tiny:Q8_0@v1", "hf://me/tiny:Q8_0@v1"),
        ("what?.gguf", "what?.gguf"),
    ],
)
def test_an_address_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
