"""``https://``: kept by address, resumed, refused where it is no model or not protected."""

from __future__ import annotations

from pathlib import Path

import pytest
from sis_hub.fake_hub import FakeHub
from sis_hub.hub import HubSource
from sis_hub.remote import Patience
from sis_hub.verify import verify
from sis_hub.web import WebSource

from sis_core.errors import SourceError
from sis_core.testing import check_source


@pytest.fixture
def web(source: HubSource, patience: Patience, tmp_path: Path) -> WebSource:
    return WebSource(source, tmp_path / "web", patience)


def test_a_file_is_fetched_once(web: WebSource, hub: FakeHub, model: bytes) -> None:
    hub.files["a/model.gguf"] = model
    path = web.resolve(f"{hub.url}/files/a/model.gguf?key=secret")
    assert path is not None
    assert path.read_bytes() == model
    asked = len(hub.requests)
    assert web.resolve(f"{hub.url}/files/a/model.gguf?key=secret") == path
    assert len(hub.requests) == asked
    (listing,) = web.list()
    assert (listing.name, listing.n_bytes) == (f"{hub.url}/files/a/model.gguf", len(model))
    assert "secret" not in "".join(p.read_text("latin-1") for p in path.parent.iterdir() if p != path)
    assert verify(listing)
    assert web.remove(listing.name)
    assert list(web.list()) == []
    assert not path.parent.exists()


def test_a_cut_connection_is_taken_up_again(web: WebSource, hub: FakeHub, model: bytes) -> None:
    hub.files["m.gguf"], hub.cut_after = model, 1_000_000
    path = web.resolve(f"{hub.url}/files/m.gguf")
    assert path is not None
    assert path.read_bytes() == model
    assert len([what for _, _, what in hub.requests if what]) > 5


def test_a_file_that_changes_is_not_pieced_together(web: WebSource, hub: FakeHub, model: bytes) -> None:
    hub.files["m.gguf"], hub.cut_after = model, 1_000_000
    other = model[:3_000_000] + model[3_000_000:][::-1]  # of the same length
    with pytest.raises(SourceError, match="the file changed where it is while it was downloaded"):
        web.resolve(f"{hub.url}/files/m.gguf", lambda done, total: hub.files.update({"m.gguf": other}))
    hub.cut_after = None
    path = web.resolve(f"{hub.url}/files/m.gguf")
    assert path is not None
    assert path.read_bytes() == other


def test_what_another_version_left_is_thrown_away(web: WebSource, hub: FakeHub, model: bytes) -> None:
    url = f"{hub.url}/files/m.gguf"
    hub.files["m.gguf"] = model
    with pytest.raises(KeyboardInterrupt):
        web.resolve(url, interrupt)
    (partial,) = web._kept.path.rglob("*.incomplete")
    assert 0 < partial.stat().st_size < len(model)
    hub.files["m.gguf"] = model[:3_000_000] + model[3_000_000:][::-1]
    path = web.resolve(url)
    assert path is not None
    assert path.read_bytes() == hub.files["m.gguf"]
    assert not partial.exists()


def test_an_interrupted_download_goes_on(web: WebSource, hub: FakeHub, model: bytes) -> None:
    url = f"{hub.url}/files/m.gguf"
    hub.files["m.gguf"] = model
    with pytest.raises(KeyboardInterrupt):
        web.resolve(url, interrupt)
    path = web.resolve(url)
    assert path is not None
    assert path.read_bytes() == model
    assert hub.requests[-1][2] not in ("", "bytes=0-0")


def interrupt(done: int, total: int) -> None:
    if done > 1_000_000:
        raise KeyboardInterrupt


def test_all_parts_of_a_split_model_are_fetched(web: WebSource, hub: FakeHub, model: bytes) -> None:
    for i in (1, 2):
        hub.files[f"x-0000{i}-of-00002.gguf"] = model[: 5000 * i]
    path = web.resolve(f"{hub.url}/files/x-00001-of-00002.gguf")
    assert path is not None
    assert sorted(p.name for p in path.parent.glob("*.gguf")) == ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]


def test_an_address_of_the_hub_is_the_hubs(
    web: WebSource, hub: FakeHub, source: HubSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    path = web.resolve(f"{hub.url}/me/tiny/blob/main/tiny-Q8_0.gguf")
    assert path == source.resolve("hf://me/tiny")
    assert list(web.list()) == []


def test_a_header_is_read_by_ranges(web: WebSource, hub: FakeHub, model: bytes) -> None:
    hub.files["m.gguf"] = model
    assert web.read(f"{hub.url}/files/m.gguf", 10, 20) == model[10:30]
    hub.ignore_ranges = True
    with pytest.raises(SourceError, match="sends only whole files"):
        web.read(f"{hub.url}/files/m.gguf", 10, 20)


@pytest.mark.parametrize(
    ("path", "said"),
    [("none.gguf", "the server answered 404"), ("text.gguf", "what the server sent is no GGUF file")],
)
def test_refused(web: WebSource, hub: FakeHub, path: str, said: str) -> None:
    hub.files["text.gguf"] = b"not a model " * 100
    with pytest.raises(SourceError, match=said):
        web.resolve(f"{hub.url}/files/{path}")
    assert list(web.list()) == []


def test_a_page_is_refused_at_its_first_bytes(web: WebSource, hub: FakeHub, model: bytes) -> None:
    hub.files["m.gguf"], hub.html = model, True
    with pytest.raises(SourceError, match="what the server sent is an HTML or XML page"):
        web.resolve(f"{hub.url}/files/m.gguf")


@pytest.mark.parametrize("address", ["http://example.org/m.gguf", "https://", "https://[::1/m.gguf", "https://a b/m"])
def test_addresses_that_are_never_asked(web: WebSource, address: str) -> None:
    with pytest.raises(SourceError):
        web.resolve(address)


def test_a_password_is_not_shown(web: WebSource) -> None:
    with pytest.raises(SourceError, match="http sends a model unprotected") as refused:
        web.resolve("http://me:secret@example.org/m.gguf?sig=secret")
    assert "secret" not in str(refused.value)


def test_a_source_like_any_other(web: WebSource, hub: FakeHub, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["m.gguf"] = model
    web.resolve(f"{hub.url}/files/m.gguf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_source(web, f"{hub.url}/files/m.gguf")
