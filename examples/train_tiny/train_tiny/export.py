"""Writing a model as a GGUF file, and reading such a file back."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GType
from gguf import LlamaFileType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from train_tiny.model import Shape, TinyLlama
from train_tiny.vocabulary import Vocabulary

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}


def gguf_name(name: str) -> str:
    """The GGUF name of one of TinyLlama's parameters: `blocks.0.attn.q.weight` is `blk.0.attn_q.weight`."""
    return name.replace("blocks.", "blk.").replace("attn.", "attn_").replace("ffn.", "ffn_")


def write_gguf(
    model: TinyLlama,
    vocabulary: Vocabulary,
    path: Path,
    kind: str,
    *,
    name: str,
    author: str,
    licence: str,
    description: str,
    template: str = "",
) -> None:
    """Write model and vocabulary to one file. Matrices are stored as `kind`, norms always as F32.

    `template`, if any, is the Jinja template that turns messages into text.
    """
    if kind not in FILE_TYPES:
        raise ValueError(f"cannot write {kind}; choose one of {', '.join(FILE_TYPES)}")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(name)
    if author:
        writer.add_author(author)
    if licence:
        writer.add_license(licence)
    writer.add_description(description)
    writer.add_languages(["en"])
    writer.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, model.shape)
    _add_vocabulary(writer, vocabulary)
    if template:
        writer.add_chat_template(template)
    for tensor_name, parameter in model.named_parameters():
        values = parameter.detach().float().cpu().numpy()
        stored = GType.F32 if values.ndim == 1 else GType[kind]
        writer.add_tensor(gguf_name(tensor_name), gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    tokens, merges = vocabulary.tokens(), vocabulary.merges()
    control = vocabulary.control()
    types = [gguf.TokenType.CONTROL if i in control else gguf.TokenType.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def read_gguf(path: Path) -> tuple[TinyLlama, Vocabulary]:
    """Read a file that `write_gguf` wrote, from the file alone; stored types are widened to float32."""
    reader = gguf.GGUFReader(path)

    def value(key: str):  # noqa: ANN202 - a string, number or list, as the file says
        return reader.fields[key].contents()

    shape = Shape(
        n_vocab=value("llama.vocab_size"),
        n_embd=value("llama.embedding_length"),
        n_layer=value("llama.block_count"),
        n_head=value("llama.attention.head_count"),
        n_head_kv=value("llama.attention.head_count_kv"),
        n_ff=value("llama.feed_forward_length"),
        n_ctx=value("llama.context_length"),
        rope_base=value("llama.rope.freq_base"),
        norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
    )
    model = TinyLlama(shape)
    stored = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(stored[gguf_name(name)])))

    ids = {token: i for i, token in enumerate(value("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    bos, eos = value("tokenizer.ggml.bos_token_id"), value("tokenizer.ggml.eos_token_id")
    types = value("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([token for token, i in ids.items() if types[i] == gguf.TokenType.CONTROL])
    return model, Vocabulary(tokenizer, bos, eos)


def requantised(model: TinyLlama, kind: str) -> TinyLlama:
    """A copy of the model with its matrices rounded as `kind` would store them."""
    copy = TinyLlama(model.shape)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.ndim == 2:
                rounded = gguf.quants.quantize(parameter.numpy(), GType[kind])
                parameter.copy_(torch.from_numpy(gguf.quants.dequantize(rounded, GType[kind])))
    return copy
