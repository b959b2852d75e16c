"""safetensors to GGUF beside llama.cpp's converter: the same keys and tensors, for every family."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sis_hub.convert.run import convert

from sis_core.gguf_file import Array, GGUFFile
from sis_core.registry import Registry

GOLDENS = Path(__file__).parent / "goldens"
LONG = 12
REGISTRY = Registry.load()

#: Keys that only one of the two writes, and why.
OURS = {"gptneox": {"general.file_type"}, "mpt": {"general.file_type"}}  # its converter forgets it
THEIRS = {
    "gemma": {"tokenizer.ggml.eot_token_id"},  # 107, whatever token that is
    "internlm2": {"tokenizer.ggml.add_space_prefix"},  # true, as where it is absent
}


def digest(value: Any) -> Any:
    """As `goldens/make.py` writes a value."""
    if isinstance(value, Array):
        items = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value]
        if len(items) > LONG:
            return {"n": len(items), "sha256": hashlib.sha256(json.dumps(items).encode()).hexdigest()}
        return items
    return value


#: Of the tiny checkpoints those whose family is installed.
NAMES = sorted(
    path.stem
    for path in GOLDENS.glob("*.json")
    if json.loads(path.read_text("utf-8"))["keys"]["general.architecture"][1] in REGISTRY.names("architectures")
)


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_tensors_are_those_of_llama_cpp(name: str, checkpoint: Any, tmp_path: Path) -> None:
    golden = json.loads((GOLDENS / f"{name}.json").read_text("utf-8"))
    with GGUFFile.open(convert(checkpoint(name), tmp_path / "m.gguf", registry=REGISTRY, name="tiny")) as file:
        keys = {key: [file.metadata_types[key], digest(value)] for key, value in file.metadata.items()}
        wanted = golden["keys"]
        assert keys.keys() - wanted.keys() == OURS.get(name, set())
        assert wanted.keys() - keys.keys() == THEIRS.get(name, set())
        assert {key: keys[key] for key in keys.keys() & wanted.keys()} == {
            key: wanted[key] for key in keys.keys() & wanted.keys()
        }
        assert sorted(file.tensors) == sorted(golden["tensors"])
        for tensor, (shape, kind, data) in golden["tensors"].items():
            info = file.tensors[tensor]
            assert (list(info.shape), info.type_name) == (shape, kind), tensor
            raw = file.raw(tensor)
            if isinstance(data, list):
                np.testing.assert_allclose(raw.view("<f4"), data, rtol=1e-6)
            else:
                assert hashlib.sha256(raw.tobytes()).hexdigest()[:16] == data, tensor
