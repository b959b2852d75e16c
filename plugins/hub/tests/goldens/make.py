"""What llama.cpp's converter makes of the tiny checkpoints: keys and digests of tensors, for `test_convert.py`.

    python plugins/hub/tests/goldens/make.py --llama-cpp llama_cpp_python-0.3.36/vendor/llama.cpp

Runs in an environment with transformers, sentencepiece and gguf (`benchmarks/oracle_requirements.txt`), never of sis.
The converter knows `tokenizer.ggml.pre` by a hash of what a real vocabulary makes of a text; here it is told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LONG = 12  # items of an array that are written out


def convert(folder: Path, out: Path, pre: str) -> None:
    import convert_hf_to_gguf as converter
    from conversion.base import ModelBase, TextModel
    from conversion.gpt2 import GPT2Model
    from oracle.convert import mend

    # At 0c1e570 GPT-2's causal masks, which are meant to be left out, end the conversion.
    GPT2Model.filter_tensors = classmethod(lambda _cls, item: None if item[0].endswith(".attn.bias") else item)
    # transformers 5.24 drops rotary_pct, which the converter of GPT-NeoX reads.
    load = TextModel.load_hparams
    TextModel.load_hparams = ModelBase.load_hparams = staticmethod(
        lambda where, is_mistral_format: (
            json.loads((where / "config.json").read_text()) | load(where, is_mistral_format)
        )
    )
    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: pre
    sys.argv = ["convert", str(folder), "--outtype", outtype(folder), "--outfile", str(out), "--model-name", "tiny"]
    mend()
    converter.main()


def outtype(folder: Path) -> str:
    """The type of the weights, which sis keeps."""
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    kinds = [entry["dtype"] for name, entry in header.items() if name != "__metadata__" and len(entry["shape"]) == 2]
    return str(kinds[0].lower())


def digest(value: Any) -> Any:
    """A value, or for a long array its length and a digest."""
    if isinstance(value, list) and len(value) > LONG:
        return {"n": len(value), "sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}
    return value


def description(path: Path) -> dict[str, Any]:
    """Keys with types and values, tensors with shape, type and digest."""
    import gguf

    reader = gguf.GGUFReader(path)
    keys = {}
    for name, part in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        types = [kind.name.lower() for kind in part.types]
        keys[name] = [f"array[{types[1]}]" if types[0] == "array" else types[0], digest(part.contents())]
    tensors = {}
    for tensor in reader.tensors:
        entry = [list(map(int, tensor.shape[::-1])), tensor.tensor_type.name]
        if tensor.name.startswith("rope_"):
            entry.append([float(x) for x in np.asarray(tensor.data).reshape(-1)])
        else:
            entry.append(hashlib.sha256(tensor.data.tobytes()).hexdigest()[:16])
        tensors[tensor.name] = entry
    return {"keys": keys, "tensors": tensors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    # The converter is written for the gguf package beside it.
    folders = options.llama_cpp / "gguf-py", options.llama_cpp, HERE.parent, HERE.parents[3] / "tests"
    sys.path[:0] = map(str, folders)
    from checkpoints import CHECKPOINTS, PRE

    for name in options.names or (name for name in CHECKPOINTS if name != "llama_json"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            folder.mkdir()
            CHECKPOINTS[name](folder)
            out = Path(scratch) / "model.gguf"
            convert(folder, out, PRE.get(name, ""))
            text = json.dumps(description(out), indent=1, ensure_ascii=False)
            (HERE / f"{name}.json").write_text(text + "\n", "utf-8")
            print(name, out.stat().st_size)


if __name__ == "__main__":
    main()
