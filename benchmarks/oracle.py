"""What other programs make of a GGUF file: logits to hold ours against.

    python benchmarks/oracle.py model.gguf --tokens 1,2,3 --out logits.npz
    python benchmarks/oracle.py model.gguf --tokens 1,2,3 --oracle hf --oracle llama.cpp     # do they agree?
    python benchmarks/oracle.py --goldens tests/goldens/logits                               # write the goldens anew

Runs in an environment of its own (`benchmarks/oracle_requirements.txt`); the tests read only the goldens.

- `hf`: the model class of Hugging Face transformers for the file's architecture, its configuration made from the file's
  metadata, its parameters from the file's tensors, which the `gguf` package reads and dequantizes. Every parameter must
  be found and every tensor used. Attention is transformers' eager one. With `--dtype float64` (the default) all matrix
  products are float64; norms, softmax and rotations stay float32 where the model class says so.
- `llama.cpp`: the file itself, on the CPU, with a float32 cache and without flash attention. Two of its shortcuts set
  how closely it can agree: GELU goes through a table of float16 (GPT-2, GPT-NeoX, Gemma), and weights that are not
  float32 are multiplied by activations rounded to float16 or to eight bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from random_model import write_model
from shapes import SHAPES

Logits = npt.NDArray[np.float32]

GOLDEN_TOKENS = 20
GOLDEN_SEED = 1


# --- The file --------------------------------------------------------------------------------------------------------


class Model:
    """Metadata and tensors of a GGUF file as the `gguf` package reads them."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.metadata = {name: part.contents() for name, part in reader.fields.items()}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.arch: str = self.metadata["general.architecture"]

    def get(self, key: str, default: Any = None) -> Any:
        """A key of the architecture's own, named without its prefix."""
        return self.metadata.get(f"{self.arch}.{key}", default)

    def __getitem__(self, key: str) -> Any:
        return self.metadata[f"{self.arch}.{key}"]

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor in float32, as rows of outputs."""
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)

    @property
    def n_vocab(self) -> int:
        return int(self.tensors["token_embd.weight"].shape[1])

    @property
    def head_dim(self) -> int:
        return int(self.get("attention.key_length", self["embedding_length"] // self["attention.head_count"]))


# --- Hugging Face transformers ---------------------------------------------------------------------------------------


def hf_config(model: Model) -> Any:
    """The transformers configuration that the file's metadata describes."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": model.n_vocab,
        "hidden_size": model["embedding_length"],
        "num_hidden_layers": model["block_count"],
        "num_attention_heads": model["attention.head_count"],
        "intermediate_size": model["feed_forward_length"],
        "max_position_embeddings": model["context_length"],
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    rope = {"rope_type": "default", "rope_theta": model.get("rope.freq_base", 10000.0)}
    rope_dims = model.get("rope.dimension_count", model.head_dim)
    if model.arch == "gpt2":
        return transformers.GPT2Config(
            **common,
            n_inner=model["feed_forward_length"],
            layer_norm_epsilon=model["attention.layer_norm_epsilon"],
        )
    if model.arch == "gptneox":
        return transformers.GPTNeoXConfig(
            **common,
            layer_norm_eps=model["attention.layer_norm_epsilon"],
            use_parallel_residual=model["use_parallel_residual"],
            rope_parameters=rope | {"partial_rotary_factor": rope_dims / model.head_dim},
        )
    common |= {
        "num_key_value_heads": model.get("attention.head_count_kv", model["attention.head_count"]),
        "rms_norm_eps": model["attention.layer_norm_rms_epsilon"],
    }
    if model.arch == "phi3":
        window = model.get("attention.sliding_window") or None
        return transformers.Phi3Config(
            **common,
            original_max_position_embeddings=model["rope.scaling.original_context_length"],
            rope_parameters=rope | {"partial_rotary_factor": rope_dims / model.head_dim},
            sliding_window=window,
        )
    if model.arch == "qwen2":
        return transformers.Qwen2Config(**common, rope_parameters=rope)
    common["head_dim"] = model.head_dim
    if model.arch == "llama":
        return transformers.LlamaConfig(**common, rope_parameters=rope)
    if model.arch == "qwen3":
        return transformers.Qwen3Config(**common, rope_parameters=rope)
    common |= {
        "query_pre_attn_scalar": model.head_dim,  # as llama.cpp has it for all but the 27B models
        "sliding_window": model["attention.sliding_window"],
        "final_logit_softcapping": model.get("final_logit_softcapping"),
        "attn_logit_softcapping": model.get("attn_logit_softcapping"),
    }
    if model.arch == "gemma2":
        return transformers.Gemma2Config(**common, rope_parameters=rope)
    if model.arch == "gemma3":
        local = {"rope_type": "default", "rope_theta": model.get("rope.freq_base_swa", 10000.0)}
        return transformers.Gemma3TextConfig(
            **common, rope_parameters={"full_attention": rope, "sliding_attention": local}
        )
    raise SystemExit(f"no transformers class is known here for architecture {model.arch!r}")


def hf_parameter(model: Model, name: str, value: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Undo what the converter did to a tensor (llama.cpp's `conversion/<family>.py`, `modify_tensors`)."""
    n_head = model["attention.head_count"]
    part = name.split(".")[-2]
    if model.arch == "llama" and part in ("attn_q", "attn_k"):
        # The converter pairs dimension i of a head with i + half as neighbours; transformers keeps halves.
        heads = n_head if part == "attn_q" else model.get("attention.head_count_kv", n_head)
        return value.reshape(heads, -1, 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
    if model.arch == "gptneox" and part == "attn_qkv":
        # The file has all of q, then k, then v; transformers has q, k and v of the first head, of the second …
        return value.reshape(3, n_head, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
    if model.arch == "gpt2" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down") and value.ndim == 2:
        return value.T  # Conv1D
    if model.arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        return value.astype(np.float64) - 1.0
    return value


def hf_model(model: Model, dtype: str) -> Any:
    """The transformers model with the file's tensors as its parameters."""
    import torch
    import transformers
    from transformers.initialization import no_init_weights

    torch_dtype = getattr(torch, dtype)
    auto: Any = transformers.AutoModelForCausalLM
    with no_init_weights():
        network = auto.from_config(hf_config(model), dtype=torch_dtype, attn_implementation="eager")
    network.tie_weights()
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == model.arch), model["block_count"]
    )
    used = set()
    with torch.no_grad():
        for hf_name, parameter in network.named_parameters():
            name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
            if name is None or name not in model.tensors:
                raise SystemExit(f"{hf_name}: no tensor {name!r} in the file")
            value = hf_parameter(model, name, model.tensor(name))
            if value.shape != tuple(parameter.shape):
                raise SystemExit(f"{hf_name}: {tuple(parameter.shape)} but {name} is {value.shape}")
            parameter.copy_(torch.from_numpy(value.copy()))
            used.add(name)
        if "rope_freqs.weight" in model.tensors:
            factors = torch.from_numpy(model.tensor("rope_freqs.weight").copy())
            network.model.rotary_emb.inv_freq /= factors
            used.add("rope_freqs.weight")
    if unused := set(model.tensors) - used:
        raise SystemExit(f"no parameter takes these tensors: {', '.join(sorted(unused))}")
    return network.eval()


def hf_logits(path: Path, tokens: Sequence[int], dtype: str) -> Logits:
    import torch

    network = hf_model(Model(path), dtype)
    with torch.no_grad():
        output = network(input_ids=torch.tensor([list(tokens)]), use_cache=False)
    logits: Logits = output.logits[0].to(torch.float32).numpy()
    return logits


# --- llama.cpp -------------------------------------------------------------------------------------------------------


def llama_cpp_logits(path: Path, tokens: Sequence[int], _dtype: str) -> Logits:
    import llama_cpp

    model = llama_cpp.Llama(
        str(path),
        n_ctx=max(64, len(tokens)),
        n_batch=max(64, len(tokens)),
        n_gpu_layers=0,
        logits_all=True,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    model.eval(list(tokens))
    logits = np.array(model.scores[: len(tokens)], dtype=np.float32)
    model.close()
    return logits


ORACLES: dict[str, Callable[[Path, Sequence[int], str], Logits]] = {"hf": hf_logits, "llama.cpp": llama_cpp_logits}


def difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """max|a − b| / max|b|: the measure that all comparisons of logits use."""
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


# --- Goldens ---------------------------------------------------------------------------------------------------------


def golden_tokens(n_vocab: int, n: int = GOLDEN_TOKENS) -> list[int]:
    """First and last id, a repeated one, and a walk over the rest."""
    return [0, n_vocab - 1, 7, 7, *((37 * i * i + 11) % n_vocab for i in range(n - 4))]


def write_goldens(folder: Path, dtype: str) -> None:
    """For each shape: the tiny file's digest, tokens, and the logits of all positions."""
    folder.mkdir(parents=True, exist_ok=True)
    llama_cpp = importlib.util.find_spec("llama_cpp") is not None
    with tempfile.TemporaryDirectory() as scratch:
        for shape in SHAPES.values():
            path = Path(scratch) / f"{shape.name}.gguf"
            digest = write_model(shape.scaled_down(), path, seed=GOLDEN_SEED)
            tokens = golden_tokens(shape.scaled_down().n_vocab)
            logits = hf_logits(path, tokens, dtype)
            out = folder / f"{shape.name}.npz"
            np.savez_compressed(
                out, tokens=np.array(tokens, np.int32), logits=logits, seed=GOLDEN_SEED, tensors_sha256=digest
            )
            line = f"{shape.name:16} max|logit| {np.abs(logits).max():6.2f}  {out.stat().st_size / 1024:5.1f} KiB"
            line += f"  hf float32 {difference(hf_logits(path, tokens, 'float32'), logits):.1e}"
            if llama_cpp:
                line += f"  llama.cpp {difference(llama_cpp_logits(path, tokens, dtype), logits):.1e}"
            print(line, flush=True)


def _tokens(text: str) -> list[int]:
    return [int(token) for token in text.split(",")]


def _pairs(results: dict[str, Logits]) -> Iterator[tuple[str, float]]:
    for a, b in combinations(results, 2):
        yield f"{b} against {a}", difference(results[b], results[a])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Logits of a GGUF file from other programs.")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--tokens", type=_tokens, help="ids, with commas between")
    parser.add_argument("--oracle", choices=ORACLES, action="append", help="hf unless told; may be given twice")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="for hf")
    parser.add_argument("--out", type=Path, help="an .npz file: tokens, and logits of the first oracle")
    parser.add_argument("--goldens", type=Path, metavar="FOLDER", help="write the goldens of all tiny shapes there")
    options = parser.parse_args(arguments)
    if options.goldens is not None:
        write_goldens(options.goldens, options.dtype)
        return
    if options.model is None or not options.tokens:
        parser.error("a model and --tokens, or --goldens")
    oracles = options.oracle or ["hf"]
    results = {name: ORACLES[name](options.model, options.tokens, options.dtype) for name in oracles}
    for name, logits in results.items():
        last = logits[-1]
        print(f"{name}: max|logit| {np.abs(logits).max():.4f}, last position's best token {int(last.argmax())}")
    for pair, value in _pairs(results):
        print(f"{pair}: max|a-b|/max|b| = {value:.2e}")
    if options.out is not None:
        np.savez(options.out, tokens=np.array(options.tokens, np.int32), logits=results[oracles[0]], oracle=oracles[0])


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: this needs an environment of its own, benchmarks/oracle_requirements.txt") from None
