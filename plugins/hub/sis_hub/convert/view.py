"""A checkpoint read as if it were a GGUF file: its keys, and its tensors under GGUF's names and in GGUF's order.

Nothing is written and no tensor is in memory: each is made when its bytes are asked for, and only the last one is kept.
What writes GGUF files, whole or quantised, can so write this one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sis_core.architecture import Architecture
from sis_core.arrays import U8
from sis_core.errors import ModelError, SourceError
from sis_core.gguf_file import TensorInfo
from sis_core.gguf_file.tables import DEFAULT_ALIGNMENT
from sis_core.metadata import Metadata
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.tensors import derived
from sis_hub.convert.checkpoint import Checkpoint
from sis_hub.convert.experts import stacked
from sis_hub.convert.families import check_activation, family_of
from sis_hub.convert.family import Family
from sis_hub.convert.hyperparameters import Hyperparameters
from sis_hub.convert.mxfp4 import MXFP4, Bytes
from sis_hub.convert.safetensors import Entry, SafetensorsFile
from sis_hub.convert.vocabulary import add_vocabulary

FORMATS: Mapping[str, type[QuantFormat]] = {"F32": F32Format, "F16": F16Format, "BF16": BF16Format, "U8": Bytes}
#: Ends of the names of matrices that are kept in F32 as the vectors are: positions, and what chooses experts.
WHOLE = ("position_embd.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


class CheckpointView:
    """An open checkpoint that is read as a `GGUFFile` is. Immutable and thread-safe.

    Attributes:
        path: its folder.
        paths: its safetensors files.
        metadata, metadata_types: as GGUF has them.
        tensors: as GGUF has them; offsets mean nothing here.
        label: the format of most of its matrices: F32, F16 or BF16; MXFP4 where its experts are in that.
    """

    alignment = DEFAULT_ALIGNMENT

    def __init__(self, folder: Path, registry: Registry, *, name: str = "") -> None:
        """Read and check all but the weights.

        Args:
            name: of the model; the folder's by default.

        Raises:
            SisError: the folder is incomplete or damaged, or its model cannot be told in GGUF's terms.
        """
        checkpoint = Checkpoint(folder)
        self.path, self.paths = folder, [file.path for file in checkpoint.files.values()]
        self._files = tuple(checkpoint.files.values())
        self._lock = threading.Lock()
        self._last: tuple[str, U8] | None = None
        family = family_of(checkpoint.architecture, str(folder))
        checkpoint.check_quantised(family.quantised)
        config = Hyperparameters({**family.defaults, **checkpoint.config}, str(folder))
        check_activation(family, config)
        found = stacked(family.arranged(config, _weights(checkpoint, family)), str(folder))
        roles = _roles(found, family, config)
        table = roles.get("token_embd.weight")
        if table is None or len(table.shape) != 2:
            checkpoint.refuse("has no table of token embeddings", "download every file of it")
        if config.values.get("tie_word_embeddings") is False and "output.weight" not in roles:
            checkpoint.refuse("has no head, and its config.json says that it is not the embedding", "download it again")
        self.metadata, self.metadata_types, extra = _keys(checkpoint, family, config, table.n_rows, roles, name)
        self._weights = _laid_out(registry, family, self.metadata, roles, table.n_rows, str(folder))
        self._weights |= {role: Weight.from_array(role, values) for role, values in extra.items()}
        self.tensors: Mapping[str, TensorInfo] = {role: _info(role, w) for role, w in self._weights.items()}
        types = Counter(info.type_name for info in self.tensors.values() if len(info.shape) > 1)
        self.label = MXFP4.name if MXFP4.name in types else types.most_common(1)[0][0]

    def raw(self, name: str) -> U8:
        """A tensor's bytes ``(n_bytes,)`` as GGUF has them; made now unless it is the one that was asked for last.

        Raises:
            SourceError: a file changed since it was opened.
        """
        with self._lock:
            if self._last is None or self._last[0] != name:
                self._last = None
                self._last = name, self._made(name)
            return self._last[1]

    def copy(self, name: str, start: int, stop: int) -> U8:
        """Bytes ``start:stop`` of a tensor; raises what `raw` does."""
        return self.raw(name)[start:stop].copy()

    def checker(self, name: str) -> Callable[[], None]:
        """What says whether the files still are what they were; it raises what `raw` does."""
        return self._check_unchanged

    def release(self, name: str) -> None:
        """Forget a tensor's bytes."""
        with self._lock:
            if self._last is not None and self._last[0] == name:
                self._last = None
        self._weights[name].release()

    def _check_unchanged(self) -> None:
        for file in self._files:
            file.check_unchanged()

    def _made(self, name: str) -> U8:
        weight = self._weights[name]
        if self.tensors[name].type_name == weight.format.name:
            return np.ascontiguousarray(weight.raw).reshape(-1)
        return weight.dequantize().reshape(-1).view(np.uint8)


def _weights(checkpoint: Checkpoint, family: Family) -> dict[str, Weight]:
    """The text model's tensors under their own names."""
    found = {}
    for name, (file, entry) in checkpoint.tensors.items():
        if name.startswith(family.skipped) or derived(name):
            continue
        if entry.dtype not in FORMATS or (entry.dtype == "U8" and not family.quantised):
            checkpoint.refuse(
                f"has the tensor {name[:80]!r} in {entry.dtype}, and only F32, F16 and BF16 are converted",
                "take the repository with the original weights",
            )
        if not entry.shape:
            checkpoint.refuse(f"has the tensor {name[:80]!r}, a single number that no family uses", "check its origin")
        spelt = name.replace("language_model.", "").replace(".e_score_correction_bias", ".e_score_correction.bias")
        found[spelt] = Weight.of(spelt, FORMATS[entry.dtype](), entry.shape, _reader(file, entry))
    return found


def _reader(file: SafetensorsFile, entry: Entry) -> Callable[[], U8]:
    return lambda: file.raw(entry.name)


def _roles(weights: Mapping[str, Weight], family: Family, config: Hyperparameters) -> dict[str, Weight]:
    """The tensors under GGUF's names, in the order of the files."""
    from gguf import get_tensor_name_map
    from gguf.constants import MODEL_ARCH_NAMES

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = get_tensor_name_map(arch, config.n_layer)
    roles: dict[str, Weight] = {}
    for name, weight in weights.items():
        role = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if role is None:
            raise SourceError(
                f"tensor {name[:80]!r} has no name in GGUF",
                where=config.where,
                fix="look for a GGUF file of this model",
            )
        if role in roles:
            raise SourceError(
                f"tensors {roles[role].name!r} and {name!r} are both {role}",
                where=config.where,
                fix="download it again",
            )
        if role != "output.weight" or not family.head_is_embedding:
            roles[role] = weight
    return roles


def _keys(
    checkpoint: Checkpoint,
    family: Family,
    config: Hyperparameters,
    n_rows: int,
    roles: Mapping[str, Weight],
    name: str,
) -> tuple[dict[str, Any], dict[str, str], Mapping[str, Any]]:
    """Keys, their types, and tensors that follow from them. The ``gguf`` package knows keys' names and types."""
    import gguf

    keys = gguf.GGUFWriter(None, family.architecture)
    n_parameters = sum(prod(weight.shape) for weight in roles.values())
    keys.add_type(gguf.GGUFType.MODEL)
    try:
        about = gguf.Metadata.load(None, checkpoint.folder, name or None, n_parameters)
        about.name = about.name or checkpoint.folder.name
        about.size_label = about.size_label or gguf.size_label(n_parameters, *_shares(roles))
        about.set_gguf_meta_model(keys)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        checkpoint.refuse(f"has a model card or configuration that cannot be read: {error}", "mend its README.md")
    extra = family.keys(config, keys)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(checkpoint, n_rows, keys, partial(family.control, config))
    values, types = {}, {}
    for key, value in keys.kv_data[0].items():
        kind = value.type.name.lower()
        if kind == "array":
            if not len(value.value):
                continue
            kind = f"array[{(value.sub_type or gguf.GGUFValueType.get_type(value.value[0])).name.lower()}]"
        values[key], types[key] = value.value, kind
    return values, types, extra


def _shares(roles: Mapping[str, Weight]) -> tuple[int, int, int]:
    """Values that every token uses, values of one expert, and the number of experts."""
    stacks = [weight.shape for role, weight in roles.items() if "_exps." in role and len(weight.shape) == 3]
    shared = sum(prod(weight.shape) for weight in roles.values()) - sum(map(prod, stacks))
    if not stacks:
        return shared, 0, 0
    return shared, sum(prod(shape) // shape[0] for shape in stacks), sum(shape[0] for shape in stacks) // len(stacks)


def _laid_out(
    registry: Registry,
    family: Family,
    metadata: Mapping[str, Any],
    roles: Mapping[str, Weight],
    n_rows: int,
    where: str,
) -> dict[str, Weight]:
    """The tensors as GGUF has them: the family's plugin knows what converters do to each."""
    plugin: Architecture[Any] = registry.get("architectures", family.architecture, where=where)
    try:
        config = plugin.config(Metadata(metadata, family.architecture, where), n_rows)
        if family.layout == "":
            return dict(roles)
        if family.layout is not None:
            plugin = registry.get("architectures", family.layout, where=where)
        return {role: plugin.from_hugging_face(config, role, weight) for role, weight in roles.items()}
    except ModelError as error:
        raise ModelError(error.what, where=error.where or where, fix=error.fix) from None


def _info(role: str, weight: Weight) -> TensorInfo:
    small = (
        len(weight.shape) < 2 or role.endswith("_norm.weight") or not role.endswith(".weight") or role.endswith(WHOLE)
    )
    format = F32Format() if small else weight.format
    n_bytes = prod(weight.shape[:-1]) * format.row_bytes(weight.shape[-1])
    return TensorInfo(role, weight.shape, format.type_id, format.name, 0, n_bytes)
