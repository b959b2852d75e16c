"""llama.cpp's own converter, with the byte-level vocabulary of 260 tokens in place of the family's.

    python tests/oracle/convert.py --llama-cpp FOLDER --pre qwen2 -- CHECKPOINT --outtype f32 --outfile model.gguf

The converter knows a `tokenizer.ggml.pre` by a hash of what the tokenizer makes of a text; no hash is that of ours.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def mend() -> None:
    """What stands in the way at 0c1e570: two `modify_tensors` that never write the tensors that they should."""
    from conversion.baichuan import BaichuanModel
    from conversion.stablelm import StableLMModel

    take_apart, stack = BaichuanModel.modify_tensors, StableLMModel._stack_qk_norm
    modify = StableLMModel.modify_tensors

    def baichuan(self: Any, data: Any, name: str, layer: int | None) -> Any:  # it calls itself without end
        return take_apart(self, data, name, layer) if "W_pack" in name else [(self.map_tensor_name(name), data)]

    def stablelm(self: Any, data: Any, name: str, layer: int | None) -> Any:  # a generator that returns another
        stacked: list[Any] = []
        self._stack_qk_norm = lambda *arguments: stacked.extend(stack(self, *arguments))
        return [*modify(self, data, name, layer), *stacked]

    BaichuanModel.modify_tensors = baichuan
    StableLMModel.modify_tensors = stablelm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True, help="the sources of llama.cpp")
    parser.add_argument("--pre", required=True, help="`tokenizer.ggml.pre` to write")
    parser.add_argument("arguments", nargs="+", help="of convert_hf_to_gguf.py")
    options = parser.parse_args()
    sys.path.insert(0, str(options.llama_cpp))
    import convert_hf_to_gguf as converter
    import transformers
    from conversion.base import TextModel

    transformers.AutoTokenizer = transformers.PreTrainedTokenizerFast  # some families' own class adds tokens
    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: options.pre
    get_model_class = converter.get_model_class

    def with_byte_vocabulary(*arguments: Any, **keywords: Any) -> Any:
        found = get_model_class(*arguments, **keywords)
        return type(found.__name__, (found,), {"model_arch": found.model_arch, "set_vocab": TextModel._set_vocab_gpt2})

    converter.get_model_class = with_byte_vocabulary
    mend()
    sys.argv = ["convert_hf_to_gguf.py", *options.arguments]
    converter.main()


if __name__ == "__main__":
    main()
