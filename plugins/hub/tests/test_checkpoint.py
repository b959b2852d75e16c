"""Folders and repositories of safetensors: converted once, resumed, quantised on the way, refused with a reason."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sis_hub.conversions import Conversions
from sis_hub.convert.experts import stacked
from sis_hub.convert.run import convert
from sis_hub.convert.view import CheckpointView
from sis_hub.fake_hub import FakeHub, FakeRepo
from sis_hub.hub import HubSource
from sis_hub.hub_cache import HubCache
from sis_hub.remote import Patience
from sis_hub.repository import Hub
from sis_hub.safetensors_source import SafetensorsSource
from sis_hub.verify import verify
from tokenizers import Tokenizer

from sis_core import load
from sis_core.errors import SisError, SourceError
from sis_core.gguf_file import GGUFFile
from sis_core.quant import BF16Format, F32Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.source import FileSource, resolve
from sis_core.testing import check_source
from sis_core.workbench.quantizer import run as quantizer

REGISTRY = Registry.load()
Make = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> SafetensorsSource:
    return SafetensorsSource(Conversions(tmp_path / "converted"))


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Change a JSON file; None removes a key."""
    path = folder / name
    found = json.loads(path.read_text("utf-8")) | values
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


# --- Conversions -----------------------------------------------------------------------------------------------------


FAMILIES = [path.stem for path in sorted(Path(__file__).parent.glob("goldens/*.json"))]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_runs(checkpoint: Make, tmp_path: Path, name: str) -> None:
    path = convert(checkpoint(name), tmp_path / "m.gguf", registry=REGISTRY)
    with load(path, registry=REGISTRY) as model:
        logits = model.logits([5, 7, 11])
        assert logits.shape == (3, model.tokenizer.n_vocab)
        assert np.isfinite(logits).all()
        assert model.detokenize(model.tokenize("the other", add_special=False)).strip() == "the other"


TEXTS = ["the other one", " in the  end", "Über\nЁлка 12345 \t x", "a" * 50, "don't WE'LL", "🚀🚀 café", ""]


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3", "gpt2", "gptneox", "llama_json"])
def test_texts_are_cut_as_the_tokenizer_does(checkpoint: Make, tmp_path: Path, name: str) -> None:
    folder = checkpoint(name)
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with load(convert(folder, tmp_path / "m.gguf", registry=REGISTRY), registry=REGISTRY) as model:
        for text in TEXTS:
            assert model.tokenize(text, add_special=False) == oracle.encode(text, add_special_tokens=False).ids, text


def test_a_folder_is_a_model(checkpoint: Make, source: SafetensorsSource) -> None:
    folder = checkpoint("llama")
    path = resolve(str(folder), [FileSource(), source])
    assert path.name == "llama.gguf"
    GGUFFile.open(path).close()
    made = path.stat().st_mtime_ns
    assert resolve(f"{folder}/model-00001-of-00002.safetensors", [source]) == path
    assert resolve(f"safetensors:{folder}", [source]) == path
    assert path.stat().st_mtime_ns == made
    (listing,) = source.list()
    assert (listing.name, listing.path, listing.n_bytes) == (str(folder), path, path.stat().st_size)
    assert listing.licence == "apache-2.0"
    assert verify(listing)
    check_source(source, str(folder))
    assert source.remove(str(folder))
    assert not source.remove(str(folder))
    assert not path.exists()
    assert folder.exists()


def test_a_changed_folder_is_converted_again(checkpoint: Make, source: SafetensorsSource) -> None:
    folder = checkpoint("qwen3")
    first = source.resolve(str(folder))
    change(folder, rope_theta=5000.0)
    second = source.resolve(str(folder))
    assert second is not None
    assert second != first
    with GGUFFile.open(second) as file:
        assert file.metadata["qwen3.rope.freq_base"] == 5000.0


def test_quantised_on_the_way(checkpoint: Make, tmp_path: Path) -> None:
    path = convert(checkpoint("llama3"), tmp_path / "m.gguf", to="q8_0", registry=REGISTRY)
    with GGUFFile.open(path) as file:
        types = {info.type_name for name, info in file.tensors.items() if len(info.shape) == 2}
        assert types == {"Q8_0"}
        assert file.metadata["general.file_type"] == 7
    with load(path, registry=REGISTRY) as model:
        assert np.isfinite(model.logits([5, 7])).all()


def test_a_killed_conversion_goes_on(checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target = checkpoint("gemma2"), tmp_path / "m.gguf"
    whole = convert(folder, tmp_path / "whole.gguf", registry=REGISTRY).read_bytes()
    monkeypatch.setattr(quantizer.WorkFolder, "discard", lambda self: None)  # as kill -9, which clears nothing away

    def killed(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, target, registry=REGISTRY, progress=killed)
    assert not target.exists()
    made: list[str] = []
    monkeypatch.setattr(CheckpointView, "raw", spying(CheckpointView.raw, made))
    assert convert(folder, target, registry=REGISTRY).read_bytes() == whole
    with GGUFFile.open(target) as file:
        assert 0 < len(set(made)) < len(file.tensors)


def spying(raw: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def spy(self: CheckpointView, name: str) -> Any:
        seen.append(name)
        return raw(self, name)

    return spy


def test_two_at_once_convert_once(checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = checkpoint("qwen3"), []
    monkeypatch.setattr(CheckpointView, "__init__", counting(CheckpointView.__init__, opened))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: convert(folder, tmp_path / "m.gguf", registry=REGISTRY), range(2)))
    assert done == [tmp_path / "m.gguf"] * 2
    assert len(opened) == 1


def counting(init: Callable[..., None], seen: list[Path]) -> Callable[..., None]:
    def count(self: CheckpointView, folder: Path, *arguments: Any, **options: Any) -> None:
        seen.append(folder)
        init(self, folder, *arguments, **options)

    return count


def test_a_disk_without_room(checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    folder = checkpoint("qwen3")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(SourceError, match="bytes, but the disk has 1000 left"):
        convert(folder, tmp_path / "out" / "m.gguf", registry=REGISTRY)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.gguf.lock"]


def test_a_format_that_is_not_installed(checkpoint: Make, tmp_path: Path) -> None:
    with pytest.raises(SisError, match="no installed plugin brings the format 'q9_9'"):
        convert(checkpoint("llama"), tmp_path / "m.gguf", to="q9_9", registry=REGISTRY)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("format", [F32Format(), BF16Format()])
def test_experts_in_either_way_are_the_same(format: QuantFormat) -> None:
    values = np.arange(2 * 3 * 4 * 8, dtype=np.float32).reshape(2, 3, 4, 8)  # gate, up; experts; rows; columns
    each = {
        f"model.layers.0.mlp.experts.{e}.{part}.weight": Weight.from_array("w", values[i, e], format)
        for e in (1, 0, 2)
        for i, part in enumerate(("gate_proj", "up_proj"))
    }
    fused = values.swapaxes(0, 1).reshape(3, 8, 8)
    together = {
        "model.layers.0.mlp.experts.gate_up_proj": Weight.from_array("w", fused, format),
        "model.layers.0.mlp.experts.down_proj": Weight.from_array("w", fused, format),
    }
    both = [stacked(weights, "m") for weights in (each, together)]
    for found in both:
        for i, part in enumerate(("gate_proj", "up_proj")):
            np.testing.assert_array_equal(found[f"model.layers.0.mlp.experts.{part}.weight"].dequantize(), values[i])
    assert "model.layers.0.mlp.experts.down_proj.weight" in both[1]


def test_a_missing_expert() -> None:
    some = {f"m.experts.{e}.up_proj.weight": Weight.from_array("w", np.ones((2, 2), np.float32)) for e in (0, 2)}
    with pytest.raises(SourceError, match="are not all there, or not all alike"):
        stacked(some, "m")


def test_no_tensor_is_kept(checkpoint: Make) -> None:
    view = CheckpointView(checkpoint("llama"), REGISTRY)
    first = view.raw("blk.0.attn_q.weight")
    assert view.raw("blk.0.attn_q.weight") is first
    view.raw("blk.0.attn_k.weight")
    assert view.raw("blk.0.attn_q.weight") is not first


# --- Repositories ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_source(hub: FakeHub, patience: Patience, tmp_path: Path, checkpoint: Make) -> HubSource:
    """A hub with ``me/llama``, which has safetensors, pickles and other weights that nobody needs."""
    files = {path.name: path.read_bytes() for path in checkpoint("llama").iterdir()}
    files |= {"pytorch_model.bin": b"\x80\x02" * 600, "consolidated.safetensors": b"x" * 2000, "onnx/model.onnx": b"x"}
    hub.repos["me/llama"] = FakeRepo(files)
    return HubSource(
        Hub(hub.url, patience),
        HubCache(tmp_path / "hf"),
        memory=1 << 34,
        conversions=Conversions(tmp_path / "converted"),
    )


def test_a_repository_of_safetensors(hub_source: HubSource, hub: FakeHub) -> None:
    path = hub_source.resolve("hf://me/llama")
    assert path is not None
    assert path.name == "llama.gguf"
    with GGUFFile.open(path) as file:
        assert file.metadata["general.name"] == "llama"
        assert file.metadata["general.license"] == "apache-2.0"
    assert not [p for p in hub.downloads if p.endswith((".bin", ".onnx", "consolidated.safetensors"))]
    asked = len(hub.requests)
    assert hub_source.resolve("hf://me/llama") == path
    assert len(hub.requests) == asked
    assert hub_source.remove("hf://me/llama")
    assert not path.exists()
    assert not (hub_source.cache.path / "models--me--llama").exists()


def test_a_repository_quantised(hub_source: HubSource) -> None:
    path = hub_source.resolve("hf://me/llama:q8_0")
    assert path is not None
    assert path.name == "llama-Q8_0.gguf"
    assert hub_source.convert("hf://me/llama", "q8_0") == path


def test_an_interrupted_download_of_parts_goes_on(hub_source: HubSource, hub: FakeHub) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub_source.resolve("hf://me/llama", interrupt)
    hub.requests.clear()
    assert hub_source.resolve("hf://me/llama") is not None
    assert [p.rpartition("/")[2] for p in hub.downloads] == ["model-00002-of-00002.safetensors"]


def test_what_was_downloaded_is_converted_offline(hub_source: HubSource, tmp_path: Path, patience: Patience) -> None:
    path = hub_source.resolve("hf://me/llama")
    assert path is not None
    path.unlink()
    nowhere = Hub("http://127.0.0.1:9", patience)
    assert (
        HubSource(nowhere, hub_source.cache, conversions=Conversions(tmp_path / "converted")).resolve("hf://me/llama")
        == path
    )
    assert path.exists()


def test_a_conversion_needs_its_checkpoint_no_more(hub_source: HubSource, hub: FakeHub) -> None:
    path = hub_source.resolve("hf://me/llama")
    for part in hub_source.cache.path.rglob("*.safetensors"):
        part.resolve().unlink()
    hub.requests.clear()
    assert hub_source.resolve("hf://me/llama") == path
    assert hub.requests == []


# --- Refusals --------------------------------------------------------------------------------------------------------


def refused(folder: Path, said: str) -> None:
    with pytest.raises(SisError, match=said) as error:
        CheckpointView(folder, REGISTRY)
    assert str(folder) in str(error.value)


def test_a_lone_safetensors_file(checkpoint: Make, source: SafetensorsSource, tmp_path: Path) -> None:
    alone = tmp_path / "model.safetensors"
    shutil.copy(checkpoint("qwen3") / "model.safetensors", alone)
    with pytest.raises(SourceError, match=r"no config\.json beside it.*Give the folder of the whole model"):
        resolve(str(alone), [source])


def test_pickles_are_never_opened(tmp_path: Path, source: SafetensorsSource) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "pwned",))

    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SourceError, match=r"only as pickles \(pytorch_model\.bin\), which could run code"):
        resolve(str(folder), [source])
    assert not (tmp_path / "pwned").exists()


def test_an_empty_folder_is_no_model(tmp_path: Path, source: SafetensorsSource) -> None:
    (tmp_path / "empty").mkdir()
    assert resolve(str(tmp_path / "empty"), [source]) == tmp_path / "empty"
    with pytest.raises(SourceError, match="this is a directory"):
        GGUFFile.open(tmp_path / "empty")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["OtherForCausalLM"]}, "'OtherForCausalLM' cannot be converted here"),
        ({"architectures": None}, "models of the class '' cannot be converted"),
        ({"num_hidden_layers": None}, "num_hidden_layers is 'None', not a positive integer"),
        ({"num_attention_heads": "4"}, "num_attention_heads is '4', not a positive integer"),
        ({"hidden_act": "relu"}, "its activation is 'relu', and this family has 'silu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling of the type 'dynamic' has no key"),
        ({"rope_theta": "x"}, "rope_theta is 'x', not a number"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised by 'gptq'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is set"),
        ({"vocab_size": None}, "vocab_size is"),
    ],
)
def test_configurations(checkpoint: Make, values: dict[str, Any], said: str) -> None:
    folder = checkpoint("llama")
    change(folder, **values)
    refused(folder, said)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"architectures": 3}', '{"a": ' * 10_000])
def test_a_config_that_is_none(checkpoint: Make, text: str) -> None:
    folder = checkpoint("llama")
    (folder / "config.json").write_text(text, "latin-1")
    refused(folder, r"has a config\.json that|cannot be converted here")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", r"has no config\.json"),
        ("model-00002-of-00002.safetensors", "lacks the file 'model-00002-of-00002.safetensors' that its index names"),
    ],
)
def test_a_missing_file(checkpoint: Make, file: str, said: str) -> None:
    folder = checkpoint("llama")
    (folder / file).unlink()
    refused(folder, said)


def test_no_tokenizer(checkpoint: Make) -> None:
    folder = checkpoint("llama")
    (folder / "tokenizer.model").unlink()
    refused(folder, r"neither a tokenizer\.json nor a tokenizer\.model")


def test_an_index_that_leads_elsewhere(checkpoint: Make) -> None:
    folder = checkpoint("llama")
    change(folder, "model.safetensors.index.json", weight_map={"a": "../config.json"})
    refused(folder, r"lacks the file '\.\./config\.json'")


def test_an_index_that_names_more(checkpoint: Make) -> None:
    folder = checkpoint("llama")
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    change(folder, "model.safetensors.index.json", weight_map=weight_map | {"x": "model-00001-of-00002.safetensors"})
    refused(folder, "lacks the tensor 'x' that its index names")


def test_one_tensor_in_two_files(checkpoint: Make) -> None:
    folder = checkpoint("llama")
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "in two files")


def test_a_tensor_that_nobody_knows(checkpoint: Make) -> None:
    folder = checkpoint("qwen3")
    rename(folder / "model.safetensors", b"model.norm.weight", b"model.mine.weight")
    refused(folder, r"tensor 'model\.mine\.weight' has no name in GGUF")


def test_a_missing_head(checkpoint: Make) -> None:
    folder = checkpoint("llama3")
    change(folder, tie_word_embeddings=False)
    refused(folder, "has no head, and its config.json says that it is not the embedding")


@pytest.mark.parametrize("dtype", [b"F8_E4M3", b"I64"])
def test_a_type_of_weights_that_is_not_converted(checkpoint: Make, dtype: bytes) -> None:
    folder = checkpoint("qwen3")
    size = {b"F8_E4M3": 1, b"I64": 8}[dtype]
    header = {"model.norm.weight": {"dtype": dtype.decode(), "shape": [4], "data_offsets": [0, 4 * size]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * size))
    refused(folder, f"in {dtype.decode()}, and only F32, F16 and BF16 are converted")


def test_a_tokenizer_that_cuts_in_an_unknown_way(checkpoint: Make) -> None:
    folder = checkpoint("qwen2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "[a-z]+"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(folder, r"cuts words in a way that is not known here: \[a-z\]\+")


@pytest.mark.parametrize(
    "model",
    [None, 3, {}, {"type": "Unigram", "vocab": []}, {"type": "BPE"}, {"type": "BPE", "vocab": {"a": "b"}, "merges": []},
     {"type": "BPE", "vocab": {"a": -1}, "merges": [[1]]}, {"type": "BPE", "vocab": [], "merges": []}],
)  # fmt: skip
def test_a_tokenizer_that_is_none(checkpoint: Make, model: Any) -> None:
    folder = checkpoint("qwen2")
    change(folder, "tokenizer.json", model=model)
    refused(folder, "its tokenizer cannot be read")


@pytest.mark.parametrize("token", [-1, 320, 2**70])
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_a_token_without_a_row(checkpoint: Make, name: str, token: int) -> None:
    folder = checkpoint(name)
    if name == "qwen2":
        change(folder, "tokenizer.json", added_tokens=[{"id": token, "content": "<x>", "special": True}])
    else:
        change(folder, "tokenizer_config.json", added_tokens_decoder={str(token): {"content": "<x>", "special": True}})
    refused(folder, f"token '<x>' has the id {token}, and the embedding has 320 rows")


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"<html>",
                                  b"\x0a\x05\x0a\x03\xff\xfe\xfd", b"\x0a\x02\x18\x09"])  # fmt: skip
def test_a_sentencepiece_model_that_is_none(checkpoint: Make, data: bytes) -> None:
    folder = checkpoint("llama")
    (folder / "tokenizer.model").write_bytes(data)
    refused(folder, "is no SentencePiece model")


def rename(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))
