"""What is done to a model: its metadata, shapes, types, vocabulary or weights change, one to three at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from model_drafts import Draft, Stored, Value, f32_bits, type_id
from model_seeds import ENCODED, NAMES, Seeds, quantized

from sis_core.gguf_file import TENSOR_TYPES

NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 31, 33, 64, 255, 4096, 2**15, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**63, -1, -2)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-45, 1e30, 3e38, math.inf, -math.inf, math.nan, 1e-5, 10000.0)
WORDS = (
    "",
    "a",
    "llama",
    "qwen3moe",
    "gpt-2",
    "llama-bpe",
    "yarn",
    "linear",
    "longrope",
    "\x1b[2J",
    "\n",
    "ü" * 70,
    "\0",
)
FEATURES = (
    "attention.sliding_window", "attention.key_length", "attention.value_length", "attention.head_count_kv",
    "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.causal", "rope.dimension_count",
    "rope.freq_base", "rope.freq_base_swa", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_ext_factor",
    "expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count", "expert_weights_scale",
    "expert_weights_norm", "expert_gating_func", "expert_shared_count", "expert_feed_forward_length",
    "leading_dense_block_count", "interleave_moe_layer_step", "nextn_predict_layers", "logit_scale", "residual_scale",
    "embedding_scale", "attn_logit_softcapping", "final_logit_softcapping", "attention.temperature_length",
    "attention.temperature_scale", "pooling_type", "use_parallel_residual", "rope.dimension_sections",
)  # fmt: skip
"""Keys that some family reads and another has never seen."""


class Mutator:
    """Cases by number: each is the same whoever tries it, and whatever was tried before."""

    def __init__(self, seeds: Seeds, seed: int, names: Sequence[str] = NAMES) -> None:
        self.seeds, self.seed, self.names = seeds, seed, names
        self.ways: dict[str, tuple[Callable[[Draft], None], ...]] = {
            "metadata": (self._number, self._number, self._retype, self._forget, self._borrow, self._feature),
            "shapes": (self._reshape, self._resize, self._drop, self._rename, self._duplicate),
            "types": (self._encode, self._encode, self._claim),
            "vocabulary": (self._token, self._token, self._token_list, self._token_key, self._other_words),
            "weights": (self._poison, self._scale, self._flip, self._exchange),
        }  # fmt: skip

    def case(self, number: int) -> tuple[Draft, list[str], random.Random]:
        """The model, what was done to it, and randomness for what else the case needs."""
        self.random = random.Random(f"{self.seed}-{number}")
        draft = self.seeds[self.random.choice(self.names)].copy()
        done: list[str] = []
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            kind = self.random.choice(list(self.ways))
            mutate = self.random.choice(self.ways[kind])
            mutate(draft)
            done.append(f"{kind}: {mutate.__name__.strip('_')}")
        return draft, done, self.random

    def _key(self, draft: Draft) -> str:
        """A key, of the network mostly."""
        own = [key for key in draft.metadata if key.startswith(f"{draft.architecture}.")]
        return self.random.choice(own if own and self.random.random() < 0.8 else list(draft.metadata))

    def _tensor(self, draft: Draft, at_least: int = 0) -> str:
        return self.random.choice([name for name, t in draft.tensors.items() if len(t.shape) >= at_least] or ["none"])

    def _other(self, value: Value) -> Any:
        """Another scalar that the value's type can hold."""
        if value.type == "bool":
            return self.random.random() < 0.5
        if value.type == "string":
            return self.random.choice(WORDS)
        old = value.content[0] if isinstance(value.content, list) and value.content else value.content
        near = [old * 2, old + 1, old - 1, old // 2] if isinstance(old, int | float) else [1]
        if value.type.startswith("float"):
            return self.random.choice((*FLOATS, *near[:1]))
        choice = self.random.choice(near if self.random.random() < 0.5 else NUMBERS)
        bits = int(value.type.removeprefix("u").removeprefix("int"))
        low, high = (0, 2**bits - 1) if value.type[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return min(max(choice, low), high)

    # Metadata

    def _number(self, draft: Draft) -> None:
        key = self._key(draft)
        value = draft.metadata[key]
        other = self._other(value)
        if isinstance(value.content, list):
            items = list(value.content)
            if items and self.random.random() < 0.7:
                items[self.random.randrange(len(items))] = other
            else:
                items = [other] * self.random.choice((0, 1, len(items) + 1))
            other = items
        draft.metadata[key] = Value(value.type, other)

    def _retype(self, draft: Draft) -> None:
        """The same place, another type: a list, a string, a fraction, a switch."""
        key, random = self._key(draft), self.random
        number = random.choice((0, 1, 2, 4))
        draft.metadata[key] = random.choice((
            Value("float32", float(number)), Value("string", str(number)), Value("bool", bool(number % 2)),
            Value("int64", -number), Value("uint8", number), Value("uint32", [number] * random.choice((0, 1, 2, 3, 4))),
            Value("bool", [True] * number), Value("string", ["x"] * number), Value("float64", math.nan),
        ))  # fmt: skip

    def _forget(self, draft: Draft) -> None:
        del draft.metadata[self._key(draft)]
        draft.metadata.setdefault("general.architecture", Value("string", "llama"))

    def _borrow(self, draft: Draft) -> None:
        """The name of another family, with the keys renamed or not."""
        old, new = draft.architecture, self.seeds[self.random.choice(self.names)].architecture
        if self.random.random() < 0.8:
            renamed = {
                f"{new}.{key.removeprefix(f'{old}.')}" if key.startswith(f"{old}.") else key: value
                for key, value in draft.metadata.items()
            }
            draft.metadata = renamed
        draft.metadata["general.architecture"] = Value("string", new)

    def _feature(self, draft: Draft) -> None:
        number = self.random.choice((0, 1, 2, 4, 8, 100))
        value = self.random.choice((Value("uint32", number), Value("float32", float(number)), Value("bool", True),
                                    Value("string", "yarn"), Value("int32", [number] * 4)))  # fmt: skip
        draft.metadata[f"{draft.architecture}.{self.random.choice(FEATURES)}"] = value

    # Shapes

    def _reshape(self, draft: Draft) -> None:
        """The same values in another shape."""
        name = self._tensor(draft)
        if name not in draft.tensors:
            return
        tensor = draft.tensors[name]
        n = math.prod(tensor.shape)
        shapes = [tensor.shape[::-1], (n,), (1, *tensor.shape), (*tensor.shape, 1), (2, n // 2), (n // 2, 2)]
        fitting = [s for s in shapes if s and math.prod(s) == n and len(s) <= 4 and not s[-1] % self._block(tensor)]
        if fitting:
            draft.tensors[name] = Stored(self.random.choice(fitting), tensor.type_id, tensor.data)

    def _resize(self, draft: Draft) -> None:
        name = self._tensor(draft, 1)
        if name not in draft.tensors:
            return
        tensor = draft.tensors[name]
        shape, axis = list(tensor.shape), self.random.randrange(len(tensor.shape))
        step = self._block(tensor) if axis == len(shape) - 1 else 1
        shape[axis] = max(step, shape[axis] + step * self.random.choice((-2, -1, 1, 2, 8)))
        if self.random.random() < 0.2:
            shape = [] if step == 1 else shape
        draft.tensors[name] = tensor.fitted(tuple(shape), tensor.type_id)

    def _drop(self, draft: Draft) -> None:
        draft.tensors.pop(self._tensor(draft), None)

    def _rename(self, draft: Draft) -> None:
        name = self._tensor(draft)
        changes = (("blk.0", "blk.1"), ("weight", "bias"), ("_exps", "_shexp"), ("blk.", "model.layers."), (name, "x"))
        other = name.replace(*self.random.choice(changes))
        draft.tensors[other] = draft.tensors.pop(name)

    def _duplicate(self, draft: Draft) -> None:
        """A tensor that some family has, beside this family's own."""
        other = self.seeds[self.random.choice(self.names)]
        name = self._tensor(other)
        draft.tensors.setdefault(name, other.tensors[name])

    # Types

    def _encode(self, draft: Draft) -> None:
        """The same values in another format; sometimes all tensors of a kind."""
        name = self._tensor(draft, 2)
        if name not in draft.tensors or draft.tensors[name].type_id:
            return
        suffix = name.split(".", 2)[-1] if self.random.random() < 0.5 else name
        format = self.random.choice(ENCODED)
        for key, tensor in draft.tensors.items():
            fits = (
                not tensor.type_id
                and tensor.shape[-1:]
                and not tensor.shape[-1] % TENSOR_TYPES[type_id(format)].block_size
            )
            if key.endswith(suffix) and fits and len(tensor.shape) > 1 and np.isfinite(tensor.values).all():
                with np.errstate(all="ignore"):
                    draft.tensors[key] = quantized(self.seeds.registry, tensor, format)

    def _claim(self, draft: Draft) -> None:
        """The same bytes, said to be of another type."""
        name = self._tensor(draft, 1)
        if name in draft.tensors:
            tensor, claimed = draft.tensors[name], self.random.choice(list(TENSOR_TYPES))
            if not tensor.shape[-1] % TENSOR_TYPES[claimed].block_size:
                draft.tensors[name] = tensor.fitted(tensor.shape, claimed)

    # Vocabulary

    def _token(self, draft: Draft) -> None:
        """Another text, score or kind for one token, or another merge."""
        keys = ("tokens", "token_type", "scores", "merges")
        key = self.random.choice([k for k in keys if f"tokenizer.ggml.{k}" in draft.metadata] or ["tokens"])
        value = draft.metadata.get(f"tokenizer.ggml.{key}")
        if value is None or not isinstance(value.content, list) or not value.content:
            return
        items = list(value.content)
        place = self.random.randrange(len(items))
        if key in ("tokens", "merges") and value.type != "string":
            return
        if key == "tokens":
            items[place] = self.random.choice(
                (b"", b"\xff\xfe", b"a" * 70000, b"<s>", b" ", b"\xc4\xa0x", items[0], b"\0")
            )
        elif key == "merges":
            items[place] = self.random.choice((b"", b"h", b"h  e", b"\xff e", b"h e x", b"he he", items[0], b" "))
        else:
            items[place] = self._other(value)
        draft.metadata[f"tokenizer.ggml.{key}"] = Value(value.type, items)

    def _token_list(self, draft: Draft) -> None:
        """A list that is too short or too long."""
        key = self.random.choice([k for k in draft.metadata if k.startswith("tokenizer.")] or ["general.architecture"])
        value = draft.metadata[key]
        if isinstance(value.content, list):
            n = self.random.choice((0, 1, len(value.content) - 1, len(value.content) + 1))
            draft.metadata[key] = Value(value.type, [*value.content, *value.content[-1:]][:n])

    def _token_key(self, draft: Draft) -> None:
        """Any number for an id; a pre-tokenizer, a model, a template that is another one's, or nobody's."""
        random = self.random
        name, values = random.choice((
            ("bos_token_id", (0, 3, 259, 260, 2**31, 2**32 - 1)), ("eos_token_id", (0, 3, 259, 260, 2**31, 2**32 - 1)),
            ("eot_token_id", (0, 5, 260)), ("unknown_token_id", (0, 260)), ("padding_token_id", (1, 2**32 - 1)),
            ("pre", ("llama-bpe", "qwen35", "deepseek-llm", "tekken", "chameleon", "nobody's", "")),
            ("model", ("gpt2", "llama", "bert", "rwkv", "t5", "none", "no_vocab", "")),
            ("add_bos_token", (True, False)), ("add_eos_token", (True,)), ("add_space_prefix", (True, False)),
            ("remove_extra_whitespaces", (True,)), ("precompiled_charsmap", ("x",)),
        ))  # fmt: skip
        chosen: Any = random.choice(values)
        kind = "bool" if isinstance(chosen, bool) else "string" if isinstance(chosen, str) else "uint32"
        draft.metadata[f"tokenizer.ggml.{name}"] = Value(kind, chosen)

    def _other_words(self, draft: Draft) -> None:
        """Another model's vocabulary, or none."""
        own = {key: value for key, value in draft.metadata.items() if not key.startswith("tokenizer.")}
        other = self.seeds[self.random.choice(self.names)].metadata
        borrowed = {key: value for key, value in other.items() if key.startswith("tokenizer.")}
        draft.metadata = own | (borrowed if self.random.random() < 0.7 else {})

    # Weights

    def _poison(self, draft: Draft) -> None:
        """One value of a tensor, or all, is NaN, infinite or far too large."""
        tensor = draft.tensors[name := self._tensor(draft)]
        if tensor.type_id or not len(tensor.data):
            self._flip(draft)
            return
        data, bad = tensor.data.copy(), f32_bits(self.random.choice((math.nan, math.inf, -math.inf, 3e38, -3e38, 1e20)))
        places = data.reshape(-1, 4)
        places[slice(None) if self.random.random() < 0.2 else self.random.randrange(len(places))] = bad
        draft.tensors[name] = Stored(tensor.shape, 0, data)

    def _scale(self, draft: Draft) -> None:
        tensor = draft.tensors[name := self._tensor(draft)]
        if tensor.type_id:
            self._flip(draft)
            return
        with np.errstate(all="ignore"):
            factor = np.float32(self.random.choice((0.0, -1.0, 1e-30, 1e-5, 1e5, 1e30)))
            draft.tensors[name] = Stored.of(tensor.values * factor)

    def _flip(self, draft: Draft) -> None:
        """A few bytes of a tensor, wherever they stand: scales, signs, exponents."""
        tensor = draft.tensors[name := self._tensor(draft)]
        data = tensor.data.copy()
        for _ in range(self.random.choice((1, 2, 30))):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        draft.tensors[name] = Stored(tensor.shape, tensor.type_id, data)

    def _exchange(self, draft: Draft) -> None:
        """Two tensors of the same kind in each other's place."""
        first = self._tensor(draft)
        same = [name for name, tensor in draft.tensors.items() if tensor.shape == draft.tensors[first].shape]
        second = self.random.choice(same)
        draft.tensors[first], draft.tensors[second] = draft.tensors[second], draft.tensors[first]

    @staticmethod
    def _block(tensor: Stored) -> int:
        return TENSOR_TYPES[tensor.type_id].block_size
