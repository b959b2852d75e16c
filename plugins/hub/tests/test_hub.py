"""``hf://`` against a fake hub: pulled once, verified, resumed, used offline; refusals that say what to do."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from sis_hub.fake_hub import FakeHub, FakeRepo, serving
from sis_hub.hub import HubSource
from sis_hub.hub_cache import HubCache
from sis_hub.remote import Patience
from sis_hub.repository import Hub
from sis_hub.verify import verify

from sis_core.errors import SourceError
from sis_core.gguf_file import GGUFFile
from sis_core.testing import check_source

TINY = "hf://me/tiny"


def test_pulled_once_and_then_used_without_asking(source: HubSource, hub: FakeHub, model: bytes) -> None:
    seen: list[tuple[int, int]] = []
    path = source.resolve(TINY, lambda done, total: seen.append((done, total)))
    assert path is not None
    assert path.read_bytes() == model
    whole = len(model) + len(hub.repos["me/tiny"].files["README.md"])
    assert seen[-1] == (whole, whole)
    asked = len(hub.requests)
    assert source.resolve(TINY) == source.resolve(f"{TINY}:Q8_0") == source.resolve(f"{TINY}:tiny-Q8_0.gguf") == path
    assert len(hub.requests) == asked
    GGUFFile.open(path).close()


def test_the_cache_is_huggingface_hubs_own(source: HubSource, hub: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    path = source.resolve(TINY)
    assert try_to_load_from_cache("me/tiny", "tiny-Q8_0.gguf", cache_dir=tmp_path / "hf") == str(path)
    (repo,) = scan_cache_dir(tmp_path / "hf").repos
    assert (repo.repo_id, [sorted(r.refs) for r in repo.revisions]) == ("me/tiny", [["main"]])


def test_what_huggingface_hub_downloaded_is_found(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download("me/tiny", "tiny-Q8_0.gguf", endpoint=hub.url, cache_dir=tmp_path / "other")
    source = HubSource(Hub("http://127.0.0.1:9", patience), HubCache(tmp_path / "other"))
    assert str(source.resolve(TINY)) == path


def test_split_files_come_together(source: HubSource, hub: FakeHub, model: bytes) -> None:
    parts = {f"big-Q4_0-0000{i}-of-00003.gguf": model[:5000] for i in (1, 2, 3)}
    hub.repos["me/split"] = FakeRepo(parts)
    path = source.resolve("hf://me/split")
    assert path is not None
    assert path.name == "big-Q4_0-00001-of-00003.gguf"
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(parts)


def test_the_choice_is_said_in_a_line(
    source: HubSource, hub: FakeHub, model: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hub.repos["me/many"] = FakeRepo({"m-Q4_0.gguf": model, "m-Q8_0.gguf": model + bytes(64)})
    with caplog.at_level(logging.WARNING):
        path = source.resolve("hf://me/many")
    assert path is not None
    assert path.name == "m-Q8_0.gguf"
    assert caplog.messages == ["hf://me/many: Q8_0, 6 MiB: of 2 the best that fits into 16.0 GiB of free memory"]


def test_what_does_not_fit_is_not_downloaded_unasked(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    small = HubSource(Hub(hub.url, patience), HubCache(tmp_path / "hf"), memory=1 << 20)
    with pytest.raises(SourceError, match=r"even its smallest model, Q8_0, needs about 307 MiB.*hf://me/tiny:Q8_0"):
        small.resolve(TINY)
    assert hub.downloads == []
    path = small.resolve(f"{TINY}:Q8_0")
    assert path is not None
    assert small.resolve(TINY) == path  # it is here: whether it runs is found when it is loaded


@pytest.mark.parametrize(
    ("licence", "gated", "said"),
    [
        ("apache-2.0", False, None),
        ("gemma", False, "licence gemma, which is not a free one; its terms: "),
        ("llama3.2", True, "licence llama3.2; who downloads it has accepted its terms: "),
        (None, False, "states no licence"),
    ],
)
def test_the_licence_is_shown_first(
    source: HubSource, hub: FakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    licence: str | None, gated: bool, said: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repo = hub.repos["me/tiny"]
    repo.licence, repo.gated = licence, gated
    with caplog.at_level(logging.WARNING):
        source.resolve(TINY)
    assert (said is None and not caplog.messages) or (said is not None and said in caplog.messages[0])


def test_a_moved_revision(source: HubSource, hub: FakeHub, model: bytes, caplog: pytest.LogCaptureFixture) -> None:
    old = source.resolve(TINY)
    repo = hub.repos["me/tiny"]
    hub.repos["me/tiny"] = FakeRepo({**repo.files, "tiny-Q8_0.gguf": model + bytes(32)}, commit="b" * 40)
    assert source.resolve(TINY) == old
    with caplog.at_level(logging.WARNING):
        new = source.pull(TINY)
    assert new is not None
    assert new.read_bytes() == model + bytes(32)
    assert f"{TINY}: main moved from aaaaaaa to bbbbbbb" in caplog.messages
    assert source.resolve(TINY) == new
    assert source.resolve(f"{TINY}@{'a' * 40}") == old


@pytest.mark.parametrize("cut", [300_000, 2_000_000])
def test_a_connection_that_is_cut_is_taken_up_again(source: HubSource, hub: FakeHub, model: bytes, cut: int) -> None:
    hub.cut_after = cut
    path = source.resolve(TINY)
    assert path is not None
    assert path.read_bytes() == model
    ranges = [what for method, p, what in hub.requests if p.endswith(".gguf")]
    assert len(ranges) > 3
    assert all(what.startswith("bytes=") for what in ranges[1:])


def test_a_server_without_ranges(source: HubSource, hub: FakeHub, model: bytes, tmp_path: Path) -> None:
    hub.ignore_ranges = True
    _partial(tmp_path, model, b"GGUF of an earlier time")
    path = source.resolve(TINY)
    assert path is not None
    assert path.read_bytes() == model


@pytest.mark.parametrize("had", [0, 1, 1000, 3_000_000])
def test_what_an_earlier_try_left_is_not_fetched_again(
    source: HubSource, hub: FakeHub, model: bytes, tmp_path: Path, had: int
) -> None:
    _partial(tmp_path, model, model[:had])
    path = source.resolve(TINY)
    assert path is not None
    assert path.read_bytes() == model
    ranges = [what for _, p, what in hub.requests if p.endswith(".gguf")]
    assert ranges == ([f"bytes={had}-"] if had else [""])


@pytest.mark.parametrize("left", [b"GGUF and then something else", b"<html>"])
def test_what_an_earlier_try_left_damaged_is_thrown_away(
    source: HubSource, model: bytes, tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _partial(tmp_path, model, left * 100)
    path = source.resolve(TINY)
    assert path is not None
    assert path.read_bytes() == model
    assert "what an earlier try left was damaged" in caplog.text


def _partial(tmp_path: Path, model: bytes, data: bytes) -> None:
    blobs = tmp_path / "hf" / "models--me--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(model).hexdigest()}.incomplete").write_bytes(data)


def test_a_partial_download_is_never_a_model(
    source: HubSource, hub: FakeHub, patience: Patience, tmp_path: Path
) -> None:
    hub.cut_after = 0  # nothing of the file ever comes
    with pytest.raises(SourceError, match=r"the download broke off at 0 of \d+ bytes.*The same command goes on"):
        source.resolve(TINY)
    assert not list((tmp_path / "hf").rglob("*.gguf"))
    assert list(source.list()) == []


def test_a_server_that_stalls(hub: FakeHub, model: bytes, tmp_path: Path) -> None:
    hub.delay = 30
    impatient = Patience(tries=2, timeout=0.2, sleep=lambda seconds: None)
    with pytest.raises(SourceError, match=f"the download broke off at 0 of {len(model)} bytes: ReadTimeout"):
        HubSource(Hub(hub.url, impatient), HubCache(tmp_path)).resolve(TINY)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(source: HubSource, hub: FakeHub, model: bytes, status: int) -> None:
    hub.busy, hub.busy_status = 3, status
    path = source.resolve(TINY)
    assert path is not None
    assert path.read_bytes() == model


def test_a_hub_that_stays_busy(source: HubSource, hub: FakeHub) -> None:
    hub.busy = 1000
    with pytest.raises(SourceError, match=r"hf://me/tiny: the hub cannot be asked: 429"):
        source.resolve(TINY)


def test_it_waits_as_long_as_it_is_asked_to(hub: FakeHub, tmp_path: Path) -> None:
    waits: list[float] = []
    hub.busy = 2
    HubSource(Hub(hub.url, Patience(sleep=waits.append)), HubCache(tmp_path)).resolve(TINY)
    assert waits == [0.0, 0.0]  # Retry-After: 0


def test_offline(
    hub: FakeHub, source: HubSource, patience: Patience, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = source.resolve(TINY)
    nowhere = HubSource(Hub("http://127.0.0.1:9", patience), HubCache(tmp_path / "hf"))
    assert nowhere.resolve(TINY) == path
    with caplog.at_level(logging.WARNING):
        assert nowhere.pull(TINY) == path
    assert "Using the copy of commit aaaaaaa" in caplog.text
    with pytest.raises(SourceError, match="the hub cannot be asked"):
        nowhere.resolve("hf://me/other")


def test_offline_by_wish(source: HubSource, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"is not here, and HF_HUB_OFFLINE forbids asking for it\. Unset"):
        source.resolve(TINY)
    assert hub.requests == []


@pytest.mark.parametrize("choice", ["", ":Q4_0"])
def test_parts_alone_are_no_model(source: HubSource, hub: FakeHub, model: bytes, choice: str) -> None:
    hub.repos["me/parts"] = FakeRepo({f"big-Q4_0-0000{i}-of-00004.gguf": model[:5000] for i in (1, 3)})
    with pytest.raises(SourceError, match=r"is split, without big-Q4_0-00002-of-00004\.gguf and 1 more"):
        source.resolve(f"hf://me/parts{choice}")


def test_hash_mismatch(source: HubSource, hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["me/tiny"].sha256["tiny-Q8_0.gguf"] = "0" * 64
    with pytest.raises(
        SourceError, match=r"hash mismatch: [0-9a-f]{16}… arrived, and the listing says 0{16}….*Nothing was kept"
    ):
        source.resolve(TINY)
    assert not [p for p in (tmp_path / "hf").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_small_file_is_held_against_gits_hash(source: HubSource, hub: FakeHub, tmp_path: Path) -> None:
    source.resolve(TINY)
    (card,) = (tmp_path / "hf").rglob("README.md")
    assert len(card.resolve().name) == 40
    assert card.read_bytes() == hub.repos["me/tiny"].files["README.md"]


def test_html_instead_of_a_file(source: HubSource, hub: FakeHub, tmp_path: Path) -> None:
    hub.html = True
    with pytest.raises(SourceError, match=r"tiny-Q8_0\.gguf: what the server sent is an HTML or XML page"):
        source.resolve(TINY)
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_a_missing_quant(source: HubSource) -> None:
    with pytest.raises(SourceError, match=r"hf://me/tiny:Q5_K: has no 'Q5_K'.*It has: Q8_0"):
        source.resolve(f"{TINY}:Q5_K")


def test_a_repository_without_models(source: HubSource, hub: FakeHub) -> None:
    hub.repos["me/text"] = FakeRepo({"README.md": b"x", "pytorch_model.bin": b"\x80\x02" * 1000})
    with pytest.raises(SourceError, match=r"hf://me/text: holds neither a GGUF file nor a model in safetensors"):
        source.resolve("hf://me/text")
    assert hub.downloads == []


def test_a_file_name_that_leads_out_of_the_folder(
    source: HubSource, hub: FakeHub, tmp_path: Path, model: bytes
) -> None:
    hub.repos["me/evil"] = FakeRepo({"../../../evil.gguf": model})
    with pytest.raises(SourceError, match=r"the file name '../../../evil\.gguf' would lead out of its folder"):
        source.resolve("hf://me/evil")
    assert not list(tmp_path.rglob("evil.gguf"))
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hf://me/none", r"there is no such repository, or none to see without a log-in \(404\).*hf auth login"),
        ("hf://me/tiny@v9", r"has no revision 'v9'"),
    ],
)
def test_what_is_not_there(source: HubSource, reference: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        source.resolve(reference)


def test_a_gated_repository_says_where_to_accept_its_terms(source: HubSource, hub: FakeHub) -> None:
    hub.repos["me/tiny"].gated = True
    with pytest.raises(SourceError, match=r"is gated: .*Accept them on https://huggingface\.co/me/tiny, then log in"):
        source.resolve(TINY)


def test_401_without_and_with_a_wrong_token(source: HubSource, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_right"
    with pytest.raises(SourceError, match=r"without a log-in \(401\)"):
        source.resolve(TINY)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SourceError, match=r"for this account \(401\)") as refused:
        source.resolve(TINY)
    assert "hf_wrong" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert source.resolve(TINY) is not None


def test_the_token_does_not_follow_to_another_host(
    source: HubSource, hub: FakeHub, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with serving(FakeHub({"me/tiny": hub.repos["me/tiny"]})) as storage:
        hub.storage = storage.url
        path = source.resolve(TINY)
        assert path is not None
        assert path.read_bytes() == model
    assert hub.tokens
    assert storage.requests
    assert storage.tokens == []


def test_free_disk_is_checked_first(source: HubSource, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(SourceError, match=r"needs 6,\d{3},\d{3} bytes, and the disk of .* has 1,000 free\. Make room"):
        source.resolve(TINY)
    assert hub.downloads == []


def test_list_verify_and_remove(source: HubSource, hub: FakeHub, tmp_path: Path) -> None:
    path = source.resolve(TINY)
    assert path is not None
    (listing,) = source.list()
    assert (listing.name, listing.path, listing.licence) == (f"{TINY}:Q8_0", path, "mit")
    assert listing.n_bytes == path.stat().st_size
    assert verify(listing)
    with path.resolve().open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    with pytest.raises(SourceError, match="is damaged: its hash is"):
        verify(listing)
    assert not source.remove("hf://me/other")
    assert not source.remove("tiny")
    assert source.remove(listing.name)
    assert list(source.list()) == []
    assert not (tmp_path / "hf" / "models--me--tiny").exists()


def test_bytes_that_another_commit_shares_stay(source: HubSource, hub: FakeHub, model: bytes) -> None:
    source.resolve(TINY)
    repo = hub.repos["me/tiny"]
    hub.repos["me/tiny"] = FakeRepo({**repo.files, "other-Q4_0.gguf": model[:-32]}, commit="b" * 40)
    kept = source.pull(f"{TINY}:Q8_0")
    source.pull(f"{TINY}:Q4_0")
    assert kept is not None
    assert source.remove(f"{TINY}:Q4_0")
    assert kept.read_bytes() == model


def test_each_revision_has_its_name_and_is_removed_alone(source: HubSource, hub: FakeHub, model: bytes) -> None:
    files = hub.repos["me/tiny"].files
    for i, revisions in enumerate((("v1",), ("main",), ("main",)), start=1):
        changed = {**files, "tiny-Q8_0.gguf": model[:-1] + bytes([i])}
        hub.repos["me/tiny"] = FakeRepo(changed, commit=str(i) * 40, revisions=revisions)
        source.pull(f"{TINY}:Q8_0@{revisions[0]}")
    tagged, old, new = f"{TINY}:Q8_0@v1", f"{TINY}:Q8_0@{'2' * 40}", f"{TINY}:Q8_0"
    found = {listing.name: listing.path.read_bytes()[-1] for listing in source.list()}
    assert found == {tagged: 1, old: 2, new: 3}
    hub.repos.clear()
    assert [source.resolve(name) for name in found] == [listing.path for listing in source.list()]
    assert source.remove(tagged)
    assert {listing.name for listing in source.list()} == {old, new}
    assert not source.remove(tagged)
    assert source.remove(new)  # and what the branch was before
    assert list(source.list()) == []


def test_a_header_is_read_by_ranges(source: HubSource, hub: FakeHub, model: bytes) -> None:
    assert source.read(TINY, 0, 100) == model[:100]
    assert source.read(TINY, 100, 1000) == model[100:1100]
    assert source.read(TINY, len(model) - 5, 100) == model[-5:]
    assert source.read(TINY, len(model) + 5, 100) == b""
    assert source.read("tiny", 0, 4) is None
    assert [what for _, path, what in hub.requests if "/api/" not in path] == [
        "bytes=0-99", "bytes=100-1099", f"bytes={len(model) - 5}-{len(model) + 94}",
        f"bytes={len(model) + 5}-{len(model) + 104}",
    ]  # fmt: skip
    assert list(source.list()) == []


def test_a_source_like_any_other(source: HubSource) -> None:
    check_source(source, "//me/tiny", "hf://me/tiny:Q8_0")
