"""A family run over a file: metadata and tensors become a network, and what is left over is refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import evolve

from sis_core.architecture import MAX_LAYERS, NOT_IMPLEMENTED, Architecture, ModelConfig
from sis_core.block import STEP_ROWS, Block, Network, find
from sis_core.errors import ModelError
from sis_core.experts import Experts
from sis_core.loading.rowless import TABLE, TOKENS, count_rowless
from sis_core.loading.widths import check_widths
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.tensors import Tensors, derived, gguf_names

log = logging.getLogger(__name__)

FEW_ROWS = 64  # of a step, for one expert
EXPERT_ROWS = 2048


def build_network(
    architecture: Architecture[Any],
    values: Mapping[str, Any],
    weights: Mapping[str, Weight],
    *,
    name: str,
    where: str = "",
    n_ctx: int | None = None,
    degrade: bool = False,
    ignored: Collection[str] = (),
) -> tuple[ModelConfig, Network, Tensors]:
    """Run a family over a file. What its own code raises is an error that names it.

    Args:
        architecture: the family that answers to ``name``.
        values: all metadata of the file.
        weights: all tensors of the file under the file's names.
        n_ctx: tokens to set the model up for; by default what it was trained for.
        ignored: keys to pass over where the family does not read them; each counts as a guess.

    Raises:
        ModelError: a key or tensor is missing, contradicts another, or is one that the family does not use.
    """
    metadata = Metadata(values, name, where, ignored)
    n_layer = metadata.integer("block_count", maximum=MAX_LAYERS)
    roles = gguf_names(weights, architecture.names[0], n_layer, where)
    config = architecture.config(metadata, _n_vocab(roles, values, where))
    _refuse_keys(metadata)
    if passed_over := metadata.passed_over():
        log.warning("%s: passed over because you said so: %s", where, _some(passed_over))
    metadata.report_defaults()
    if n_ctx is not None:
        config = evolve(config, n_ctx=n_ctx)
    tensors = Tensors(_as_gguf(architecture, config, roles, where), where, degrade=degrade)
    tensors.degraded += len(passed_over)
    missing = [i for i in range(config.n_layer) if not tensors.has_layer(i)]
    if missing and (not degrade or 2 * len(missing) > config.n_layer):  # placeholders for most of a model are no model
        raise ModelError(
            f"the key {name}.block_count is {config.n_layer}, but there are no tensors for layer {missing[0]}",
            where=where,
            fix="download the file again, or convert the model again from its original",
        )
    blocks = tuple(architecture.block(config, i, tensors) for i in range(config.n_layer))
    network = Network(
        n_embd=config.n_embd,
        n_vocab=config.n_vocab,
        n_ctx=config.n_ctx,
        embedding=architecture.embedding(config, tensors),
        blocks=blocks,
        head=architecture.head(config, tensors),
        step_rows=_step_rows(blocks),
    )
    _refuse_tensors(tensors, name)
    check_widths(network, name, where)
    return config, network, tensors


def _step_rows(blocks: tuple[Block, ...]) -> int:
    """More than usual where an expert would get few of the rows of a step."""
    few = any(STEP_ROWS * experts.n_used < FEW_ROWS * experts.n_expert for experts in find(blocks, Experts))
    return EXPERT_ROWS if few else STEP_ROWS


def _n_vocab(roles: Mapping[str, Weight], values: Mapping[str, Any], where: str) -> int:
    """Rows of the token embedding; ModelError where the file's tokens are others."""
    table = roles.get(TABLE)
    if table is None:
        raise ModelError(f"tensor {TABLE} is missing", where=where, fix="convert the model again from its original")
    if len(table.shape) != 2:
        raise ModelError(
            f"tensor {TABLE} has shape {table.shape}, not (n_vocab, n_embd)",
            where=where,
            fix="convert the model again from its original",
        )
    tokens = values.get(TOKENS)
    if tokens is not None and (isinstance(tokens, str) or not isinstance(tokens, Sequence)):
        raise ModelError(
            f"the key {TOKENS} must be an array of strings",
            where=where,
            fix="convert the model again from its original",
        )
    rowless = count_rowless(values, table.n_rows)
    if rowless is None:
        raise ModelError(
            f"{TOKENS} has {len(tokens or ())} tokens, but {TABLE} has {table.n_rows} rows",
            where=where,
            fix="convert the model again from its original, with the vocabulary padded to the embedding",
        )
    if rowless:
        log.warning("%s: the last %d tokens have no row in %s: texts go without", where, rowless, TABLE)
    return table.n_rows


def _as_gguf(
    architecture: Architecture[Any], config: ModelConfig, roles: Mapping[str, Weight], where: str
) -> dict[str, Weight]:
    """The tensors with those under foreign names laid out as GGUF has them."""
    try:
        return {
            role: weight
            if weight.name == role or derived(weight.name)
            else architecture.from_hugging_face(config, role, weight)
            for role, weight in roles.items()
        }
    except ModelError as error:
        raise ModelError(error.what, where=error.where or where, fix=error.fix) from None


def _refuse_keys(metadata: Metadata) -> None:
    if keys := metadata.unread():
        raise ModelError(
            f"the family {metadata.architecture} as installed does not implement what the key {_some(keys)} asks for",
            where=metadata.where,
            fix=f"{NOT_IMPLEMENTED}; or go on without it, and not trust the result: --ignore-key {keys[0]}",
        )


def _refuse_tensors(tensors: Tensors, name: str) -> None:
    if names := tensors.unread():
        raise ModelError(
            f"the family {name} as installed has no use for tensor {_some(names)}, so it would run a different model",
            where=tensors.where,
            fix=NOT_IMPLEMENTED,
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
