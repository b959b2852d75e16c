"""``ollama://``: the store as Ollama lays it out, its digests checked and never trusted as paths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sis_hub.ollama import OllamaSource
from sis_hub.verify import verify

from sis_core.errors import SourceError
from sis_core.source import Preset
from sis_core.testing import check_source

LAYER = "application/vnd.ollama.image."


@pytest.fixture
def store(tmp_path: Path, model: bytes) -> Path:
    """A store with ``tiny:latest`` and ``me/tiny:q8``."""
    folder = tmp_path / "ollama"
    texts = {"template": b"{{ .Prompt }}", "params": b'{"stop": ["<|im_end|>"], "temperature": 0.2}',
             "license": b"Apache License\nVersion 2.0"}  # fmt: skip
    layers = [layer(folder, kind, data) for kind, data in {"model": model, **texts}.items()]
    manifest(folder, "registry.ollama.ai/library/tiny/latest", layers)
    manifest(folder, "registry.ollama.ai/me/tiny/q8", layers[:1])
    return folder


def layer(folder: Path, kind: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
    return {"mediaType": LAYER + kind, "digest": f"sha256:{digest}", "size": len(data)}


def manifest(folder: Path, name: str, layers: object) -> Path:
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return path


def test_found_by_name_and_tag(store: Path, model: bytes) -> None:
    source = OllamaSource(store)
    path = source.resolve("ollama://tiny")
    assert path is not None
    assert path.read_bytes() == model
    assert source.resolve("//tiny:latest") == source.resolve("ollama://me/tiny:q8") == path
    check_source(source, "//tiny")


def test_what_is_damaged_is_pulled_by_ollama(store: Path) -> None:
    (listing, _) = OllamaSource(store).list()
    with listing.path.open("r+b") as file:
        file.write(b"no")
    with pytest.raises(SourceError, match=r"is damaged: .* `ollama pull tiny:latest`"):
        verify(listing)


def test_the_variable_names_the_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    assert OllamaSource().resolve("ollama://tiny") is not None


def test_template_parameters_and_licence_come_along(store: Path) -> None:
    found = OllamaSource(store).model("ollama://tiny")
    assert found is not None
    assert found.template == "{{ .Prompt }}"
    assert found.parameters == {"stop": ["<|im_end|>"], "temperature": 0.2}
    assert found.licence == "Apache License"


def test_what_is_set_for_a_model(store: Path) -> None:
    source = OllamaSource(store)
    assert source.preset("ollama://tiny") == Preset("", {"temperature": 0.2}, ("<|im_end|>",))
    assert source.preset("ollama://me/tiny:q8") == Preset()
    assert source.preset("hf://me/tiny") is None


@pytest.mark.parametrize(
    "odd",
    [
        '{"stop": "END", "top_k": 20.0, "num_ctx": 64}',
        '{"stop": ["", 3, "END"], "top_p": "much", "top_k": 20, "num_ctx": 64, "temperature": true, "seed": 1e999}',
    ],
)
def test_parameters_that_are_odd(store: Path, model: bytes, odd: str) -> None:
    layers = [
        layer(store, "model", model),
        layer(store, "params", odd.encode()),
        layer(store, "system", b"Be brief.\n"),
    ]
    manifest(store, "registry.ollama.ai/library/odd/latest", layers)
    assert OllamaSource(store).preset("ollama://odd") == Preset("Be brief.", {"top_k": 20}, ("END",), 64)


def test_listed_and_verified(store: Path) -> None:
    found = list(OllamaSource(store).list())
    assert [listing.name for listing in found] == ["ollama://tiny:latest", "ollama://me/tiny:q8"]
    assert all(verify(listing) for listing in found)


def test_a_damaged_blob(store: Path, model: bytes) -> None:
    (store / "blobs" / f"sha256-{hashlib.sha256(model).hexdigest()}").write_bytes(model[:-1] + b"x")
    with pytest.raises(SourceError, match=r"is damaged: .*`ollama pull tiny:latest` fetches it again"):
        OllamaSource(store).resolve("ollama://tiny")


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha256:" + "a" * 63, "md5:" + "a" * 64, "", None, "sha256:" + "A" * 64]
)
def test_a_digest_that_is_none(store: Path, digest: object) -> None:
    manifest(store, "registry.ollama.ai/library/evil/latest", [{"mediaType": LAYER + "model", "digest": digest}])
    with pytest.raises(SourceError, match="the manifest is damaged"):
        OllamaSource(store).resolve("ollama://evil")
    assert "evil" not in str([listing.name for listing in OllamaSource(store).list()])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layers": 3}', '{"layers": [3]}', '{"layers": []}', " " * 3_000_000])
def test_a_torn_manifest(store: Path, text: str) -> None:
    manifest(store, "registry.ollama.ai/library/torn/latest", []).write_text(text)
    with pytest.raises(SourceError, match=r"the manifest is damaged|its weights are not in the store"):
        OllamaSource(store).resolve("ollama://torn")


@pytest.mark.parametrize("name", ["", "..", "../tiny", "tiny:../x", "a/b/c/d", "tiny:", "a b", "x" * 300])
def test_a_name_that_is_none(store: Path, name: str) -> None:
    with pytest.raises(SourceError, match="is not a model's name"):
        OllamaSource(store).resolve(f"ollama://{name}")


def test_what_is_not_there_lists_what_is(store: Path) -> None:
    with pytest.raises(SourceError, match=r"has not pulled this model\. It has: ollama://tiny:latest"):
        OllamaSource(store).resolve("ollama://large")


def test_the_store_is_ollamas(store: Path) -> None:
    with pytest.raises(SourceError, match="`ollama rm tiny:latest` removes it"):
        OllamaSource(store).remove("ollama://tiny")
