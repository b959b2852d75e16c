"""The zoo's names are references that can be asked for, each with a licence; another manifest is another zoo."""

from __future__ import annotations

from sis_hub.fake_hub import FakeHub, FakeRepo
from sis_hub.hub import HubSource
from sis_hub.reference import parse_hub_reference
from sis_hub.zoo import ZooSource

from sis_core.testing import check_source


def test_every_entry_names_a_file_or_a_repository_and_a_licence(source: HubSource) -> None:
    entries = ZooSource(source).entries
    assert {"smollm2-135m-instruct", "gemma3-270m", "qwen3-0.6b", "tinyllama-1.1b-chat", "llama3.2-1b"} <= set(entries)
    for name, entry in entries.items():
        assert name == name.lower()
        assert parse_hub_reference(entry.model) is not None
        assert entry.licence


def test_another_zoo(source: HubSource, hub: FakeHub) -> None:
    zoo = ZooSource(source, '[mine]\nmodel = "hf://me/tiny"\nlicence = "mit"\n')
    path = zoo.resolve("mine")
    assert path == source.resolve("hf://me/tiny") == zoo.resolve("zoo:mine")
    assert zoo.resolve("yours") is None
    hub.repos["me/tiny"] = FakeRepo(hub.repos["me/tiny"].files, commit="c" * 40)
    assert zoo.pull("mine") != path
    assert zoo.read("mine", 0, 4) == b"GGUF"
    check_source(zoo, "mine")
    assert zoo.remove("mine")
    assert not zoo.remove("mine")
